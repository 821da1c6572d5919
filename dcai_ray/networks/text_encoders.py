"""Texts to vectors: `hf:NAME`, an encoder of Hugging Face transformers, a hub id or a folder.

A text's vector is the mean of its tokens' last hidden states, as sentence encoders are trained, or
the first token's where the folder of a sentence-transformers model says so. Longer texts are cut to
what the network takes. Code from a repository is not run.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dcai_ray.errors import UsageError, UserError
from dcai_ray.networks import hub
from dcai_ray.networks.from_transformers import quietly
from dcai_ray.networks.weights import sha256_of

_NEEDED = (
    ("config.json",),
    ("tokenizer.json", "vocab.txt", "tokenizer.model", "spiece.model", "vocab.json"),
    ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"),
)
_LONGEST = 512  # tokens, where the network does not say


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A network for texts."""

    name: str
    tokenizer: Any
    model: torch.nn.Module
    max_tokens: int
    by_first_token: bool

    @property
    def sha256(self) -> str:
        """Of its weights."""
        return sha256_of(self.model)


def text_encoder(name: str) -> TextEncoder:
    """The encoder of a name; its files are downloaded if need be.

    Raises:
        UsageError: it is no such name.
        UserError: transformers is not installed, or files are missing or no text encoder's.
    """
    origin, _, source = name.partition(":")
    if origin != "hf" or not source:
        raise UsageError(f"unknown text encoder {name}; use tfidf, or hf:NAME (a hub id or folder)")
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError:
        raise UserError(f"{name} needs: pip install 'dcai_ray[hf]'") from None
    if os.path.isdir(source):
        folder = os.path.abspath(source)
    elif source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise UsageError(f"unknown text encoder {name}: no such folder")
    else:
        folder = hub.fetched_folder(source, _NEEDED, name)
    with quietly(name):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModel.from_pretrained(folder).eval().requires_grad_(False)
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    positions = getattr(model.config, "max_position_embeddings", _LONGEST)
    return TextEncoder(
        name=name,
        tokenizer=tokenizer,
        model=model,
        max_tokens=min(tokenizer.model_max_length, positions, _LONGEST),
        by_first_token=_by_first_token(folder),
    )


def encode(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
    tick: Callable[[float], None] | None = None,
) -> NDArray[np.float32]:
    """Vectors (k, d) of texts; each text's depends on its batch in the last bits only.

    Args:
        encoder: the network with its tokenizer.
        texts: k texts.
        batch_size: texts per forward pass.
        device: device of the network.
        tick: called after each batch with the number of texts done so far.
    Raises:
        UserError: a vector is not finite.
    """
    model, found = encoder.model.to(device), []
    for start in range(0, len(texts), batch_size):
        tokens = encoder.tokenizer(
            list(texts[start : start + batch_size]),
            padding=True, truncation=True, max_length=encoder.max_tokens, return_tensors="pt",
        ).to(device)  # fmt: skip
        with torch.inference_mode():
            hidden = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        found.append((hidden[:, 0] if encoder.by_first_token else mean).cpu().numpy())
        if tick:
            tick(sum(map(len, found)))
    x = np.concatenate(found)
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise UserError(f"{encoder.name}: gives no finite vector for the text {texts[row]!r:.60}")
    return x


def _by_first_token(folder: str) -> bool:
    file = os.path.join(folder, "1_Pooling", "config.json")
    if not os.path.exists(file):
        return False
    with open(file, encoding="utf-8") as stream:
        return bool(json.load(stream).get("pooling_mode_cls_token"))
