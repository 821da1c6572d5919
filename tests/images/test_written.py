import numpy as np
import pytest
from PIL import Image

import dcai_ray
from dcai_ray.errors import UserError
from dcai_ray.images import written
from dcai_ray.images.decoding import read
from dcai_ray.images.sources import list_audit
from dcai_ray.storage.location import Location

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)


def listed(folder):
    listing = list_audit(Location(str(folder)))
    return [(i.label, np.asarray(read(i.file(listing.root)))) for i in listing.images]


def check(folder, labels):
    found = listed(folder)
    assert [label for label, _ in found] == labels
    for (_, shown), pixels in zip(found, PIXELS, strict=True):
        np.testing.assert_array_equal(shown, pixels)


def tensors():
    import torch

    return [torch.from_numpy(p).permute(2, 0, 1) / 255 for p in PIXELS]


@pytest.mark.parametrize(
    "pictures",
    [lambda: list(PIXELS), lambda: list(map(Image.fromarray, PIXELS)), tensors],
    ids=["arrays", "Pillow", "tensors"],
)
def test_pairs_of_any_kind_are_written_without_loss(tmp_path, pictures):
    pairs = ((picture, "ab"[i % 2]) for i, picture in enumerate(pictures()))
    assert dcai_ray.write_images(pairs, str(tmp_path)) == 6
    check(tmp_path, list("ababab"))


def test_a_torchvision_data_set_is_written_with_its_classes(tmp_path):
    from torchvision.datasets import FakeData

    fake = FakeData(size=8, image_size=(3, 6, 6), num_classes=2)
    dcai_ray.write_images(fake, str(tmp_path), classes=["cat", "dog"])
    found = listed(tmp_path)
    for (label, shown), (image, target) in zip(found, (fake[i] for i in range(8)), strict=True):
        assert label == ("cat", "dog")[int(target)]
        np.testing.assert_array_equal(shown, np.asarray(image))


def test_a_hugging_face_data_set_is_written_and_read_by_datasets_again(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["Käse", "cat"])}
    )
    rows = {"image": list(map(Image.fromarray, PIXELS)), "label": [0, 1] * 3}
    made = datasets.Dataset.from_dict(rows, features=features)
    dcai_ray.write_images(made, str(tmp_path))
    check(tmp_path, ["Käse", "cat"] * 3)
    file = str(tmp_path / "data/train-00000.parquet")
    again = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache"))
    assert again.features["label"].names == ["Käse", "cat"]
    np.testing.assert_array_equal(np.asarray(again[2]["image"]), PIXELS[2])


def test_rows_of_ray_data_keep_their_ids(tmp_path):
    class RayDataset:  # what is used of it; ray.data itself needs a cluster
        def iter_rows(self):
            for i, pixels in enumerate(PIXELS):
                yield {"image": pixels, "label": np.int64(i % 2), "id": f"x{i}"}

    dcai_ray.write_images(RayDataset(), str(tmp_path))
    images = list_audit(Location(str(tmp_path))).images
    assert [(i.id, i.label) for i in images] == [(f"x{i}", str(i % 2)) for i in range(6)]


@pytest.mark.parametrize(
    ("example", "line"),
    [
        ((np.full((2, 2), 3.0), "a"), "example 0: floats must lie in 0 to 1"),
        ((np.zeros((2, 2), dtype=np.int64), "a"), "example 0: pixels must be uint8 or floats"),
        ((np.zeros((2, 2, 7), dtype=np.uint8), "a"), r"example 0: a picture cannot have .*2, 7"),
        ((PIXELS[0], 1.5), "example 0: the label must be a text or an integer"),
        ((PIXELS[0], None), "example 0: the label must be a text or an integer"),
        (PIXELS[0], "example 0: must be"),
        ({"picture": PIXELS[0]}, "example 0: needs image and label, has picture"),
    ],
)
def test_an_example_that_cannot_be_used_is_refused_by_its_number(tmp_path, example, line):
    with pytest.raises(UserError, match=line):
        dcai_ray.write_images([example], str(tmp_path / "out"))


def test_a_split_is_not_written_twice(tmp_path):
    pairs = [(p, "a") for p in PIXELS]
    dcai_ray.write_images(pairs, str(tmp_path))
    with pytest.raises(UserError, match="has a split train already"):
        dcai_ray.write_images(pairs, str(tmp_path))


def test_an_interrupted_call_is_no_data_and_resumes_behind_its_complete_files(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(written, "_ROWS_PER_FILE", 2)
    pairs = [(p, "ab"[i % 2]) for i, p in enumerate(PIXELS)]
    with pytest.raises(UserError, match="example 4"):
        dcai_ray.write_images([*pairs[:4], (PIXELS[4], None)], str(tmp_path))
    with pytest.raises(UserError, match="incomplete"):
        list_audit(Location(str(tmp_path)))
    first = (tmp_path / "data/train-00000.parquet").stat().st_mtime_ns
    assert dcai_ray.write_images(pairs, str(tmp_path), resume=True) == 6
    assert (tmp_path / "data/train-00000.parquet").stat().st_mtime_ns == first
    check(tmp_path, list("ababab"))
