"""Text encoders against transformers' own output, with a tiny network that the test makes."""

import json

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dcai_ray.errors import UsageError, UserError
from dcai_ray.networks.text_encoders import encode, text_encoder

pytestmark = pytest.mark.slow  # transformers takes seconds to be imported
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "dog", "sat", "ran")
TEXTS = ["a cat sat", "dog", "a dog ran a cat ran " * 9]  # the last is longer than it takes
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=16,
        )
    ).save_pretrained(folder)  # fmt: skip
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def states(folder, text):
    """Last hidden states of one text, without padding."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(
        text, truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.inference_mode():
        return AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state[0].numpy()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_text_is_the_mean_of_its_tokens_whatever_it_is_padded_with(folder, batch_size):
    x = encode(text_encoder(f"hf:{folder}"), TEXTS, batch_size=batch_size, device=CPU)
    expected = [states(folder, text).mean(axis=0) for text in TEXTS]
    assert_allclose(x, expected, atol=1e-5)  # float32, summed in other orders
    assert x.dtype == np.float32


def test_the_first_token_where_the_folder_says_so(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    x = encode(text_encoder(f"hf:{tmp_path}"), TEXTS, batch_size=3, device=CPU)
    assert_allclose(x, [states(folder, text)[0] for text in TEXTS], atol=1e-5)


def test_what_is_no_text_encoder_is_refused_in_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"unknown text encoder resnet18; use tfidf, or hf:NAME"):
        text_encoder("resnet18")
    with pytest.raises(UserError, match=r"hf:\S+: transformers cannot read it"):
        text_encoder(f"hf:{tmp_path}")
