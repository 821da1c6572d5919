"""The bundled demo set: scikit-learn's handwritten digits as an image folder with wrong labels.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI (8 x 8 grey pixels).
"""

import csv
import io

import numpy as np
from PIL import Image

from dcai_ray.storage.location import Location

NUM_TRAIN, NUM_SHAPLEY_VAL = 1000, 300
WRONG_SHARE = 0.3
_LOOK_ALIKE = {0: 6, 6: 0, 1: 7, 7: 1, 2: 3, 3: 2, 4: 9, 9: 4, 5: 8, 8: 5}
_SIDE_PX = 64

SETTINGS = {
    "finetune": {
        "backbones": ["efficientnet_lite0"],
        "seeds": [0, 1],
        "epochs": 3,
        "optimizer": "adamw",
        "learning_rate": 3e-4,
        "schedule": "cosine",
        "freeze_batchnorm": True,
        "size_px": 64,
        "crop_scale": [0.7, 1.0],
        "flip": False,
    },
    "extract": {"backbone": "efficientnet_lite0", "size_px": 96},
    "sample": {"check": "knn-accuracy", "stop": ["settled", "rounds"], "rounds": 2000},
}
"""Settings for digits on two cores: small images, few steps, no mirroring, and a cross-check."""


def write_digits(root: Location, *, seed: int = 0) -> None:
    """Write train, shapley_val and val below `root`, and `truth.csv` for the training images.

    There are 1,000 training images, 30 % of them labelled as the digit that they resemble most (as
    annotators err), and 300 and 497 correctly labelled images for validation. The same seed writes
    the same files. `truth.csv` is written last and marks the set as complete.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(digits.target))
    wrong = set(rng.permutation(NUM_TRAIN)[: round(WRONG_SHARE * NUM_TRAIN)].tolist())
    rows = []
    for place, index in enumerate(order.tolist()):
        true = int(digits.target[index])
        if place < NUM_TRAIN:
            label = _LOOK_ALIKE[true] if place in wrong else true
            path = f"train/{label}/{index:04d}.png"
            rows.append((path, label, true))
        else:
            split = "shapley_val" if place < NUM_TRAIN + NUM_SHAPLEY_VAL else "val"
            path = f"{split}/{true}/{index:04d}.png"
        (root / path).write_bytes(_png(digits.images[index]))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("path", "label", "true_label"))
    table.writerows(sorted(rows))
    (root / "truth.csv").write_bytes(text.getvalue().encode())


def _png(pixels: np.ndarray) -> bytes:
    """A digit of 8 x 8 values 0..16 as PNG, enlarged smoothly for the eye."""
    small = Image.fromarray((pixels / 16 * 255).round().astype(np.uint8))
    content = io.BytesIO()
    small.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BICUBIC).save(content, "png")
    return content.getvalue()
