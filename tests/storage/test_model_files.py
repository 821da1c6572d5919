import json

import numpy as np
import pytest
from safetensors.numpy import save

from dcai_ray.storage.location import Location
from dcai_ray.storage.model_files import read_notes

NOTES = {"fingerprint": "abc", "history": json.dumps([{"epoch": 1, "loss": 0.5}]), "name": "Käse"}


@pytest.fixture
def model(tmp_path):
    return Location(str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("tensors", [0, 3, 2000], ids=["none", "few", "a header of 150 KB"])
def test_the_notes_a_model_was_saved_with_come_back(model, tensors):
    """What the library writes is what is read; 2,000 tensors need a second read."""
    state = {f"layer{i}.weight": np.zeros(2, np.float32) for i in range(tensors)}
    model.write_bytes(save(state, NOTES))
    assert read_notes(model) == NOTES


def test_a_model_without_notes_or_without_a_file_has_none(model):
    assert read_notes(model) == {}
    model.write_bytes(save({"x": np.zeros(2, np.float32)}))
    assert read_notes(model) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02",
        b"\xff" * 8,
        (10**9).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (20).to_bytes(8, "little") + b'{"__metadata__": 3  }',
        (40).to_bytes(8, "little") + b'{"__metadata__": {"fing',
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
    ],
)
def test_a_damaged_model_has_no_notes(model, content):
    model.write_bytes(content)
    assert read_notes(model) == {}


def test_a_folder_named_like_a_model_is_no_model(model):
    (model / "inside").write_bytes(b"x")
    with pytest.raises(OSError, match="directory"):
        read_notes(model)
