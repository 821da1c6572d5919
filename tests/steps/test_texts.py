"""A table of texts from end to end."""

import csv
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from dcai_ray.cli import main
from dcai_ray.errors import UserError
from dcai_ray.images.lists import has_texts
from dcai_ray.steps.texts import read_texts, tfidf
from dcai_ray.storage.location import Location
from tests.support.small_runs import done

WORDS = {
    "sport": ("team", "match", "goal", "coach", "league", "striker", "referee", "final", "race"),
    "food": ("bread", "oven", "butter", "soup", "salt", "onion", "garlic", "flour", "sugar"),
}
WRONG = ("0003", "0010", "0017")


def rows(count=40, seed=0):
    """Texts of five words of their class; some have the other class's label."""
    rng = np.random.default_rng(seed)
    kinds = list(WORDS)
    found = []
    for i in range(count):
        kind = kinds[i % 2]
        label = kinds[1 - i % 2] if f"{i:04d}" in WRONG else kind
        text = " ".join(rng.choice(WORDS[kind], 5))
        found.append({"id": f"{i:04d}", "text": text, "label": label})
    return found


def write(file, entries):
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(entries[0]))
        table.writeheader()
        table.writerows(entries)
    return Location(str(file))


@pytest.mark.ray
def test_wrong_labels_of_texts_are_found_and_the_texts_are_shown(tmp_path, ray_cluster):
    file = write(tmp_path / "texts.csv", rows())
    done("audit", file, "--run", tmp_path / "run")
    values = pd.read_parquet(tmp_path / "run/values/values.parquet")
    assert sorted(values.id[values.decision == "drop"]) == list(WRONG)
    features = pd.read_parquet(tmp_path / "run/features/train")
    assert dict(zip(features.id, features.shown, strict=True)) == {
        row["id"]: row["text"] for row in rows()
    }
    page = (tmp_path / "run/report.html").read_text()
    said = re.sub(r"<script.*?</script>|<style.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert re.search(r"\bimages?\b", said) is None
    assert len(re.findall(r"\bexamples?\b", said)) > 10
    assert rows()[int(WRONG[0])]["text"] in page
    assert "40 training examples" in page
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}
    done("audit", file, "--run", tmp_path / "run")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")} == before


@pytest.mark.ray
def test_a_run_of_texts_has_probes_on_its_val(tmp_path, ray_cluster):
    entries = [{**row, "split": "val" if i % 3 == 2 else "train"}
               for i, row in enumerate(rows(90, seed=1))]  # fmt: skip
    done("run", "--data", write(tmp_path / "texts.csv", entries), "--run", tmp_path / "run")
    probes = pd.read_parquet(tmp_path / "run/cleaned/probes.parquet")
    assert {"all", "kept", "random"} <= set(probes.arm)
    assert probes.accuracy[probes.arm == "kept"].min() > 0.9


def test_tfidf_of_few_texts_keeps_the_angles_between_them():
    texts = [row["text"] for row in rows(12)]
    x = tfidf({"train": texts})["train"]
    weights = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit_transform(texts)
    # One dimension fewer than texts: only what is common to none is lost.
    assert np.abs(x @ x.T - (weights @ weights.T).toarray()).max() < 0.35
    assert x.shape == (12, 11)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": ""}, "row 2 has no text"),
        ({"label": ""}, "row 2 has no label"),
        ({"id": "0000"}, "id 0000 occurs more than once"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path, change, reason):
    entries = rows(4)
    entries[1] = {**entries[1], **change}
    with pytest.raises(UserError, match=reason):
        read_texts(write(tmp_path / "a.csv", entries), whole=False)


def test_texts_and_images_in_one_table_are_refused(tmp_path):
    file = write(tmp_path / "a.csv", [{"text": "a", "path": "a.png", "label": "b"}])
    with pytest.raises(UserError, match="has columns for texts and for images"):
        has_texts(file)


def test_an_unknown_encoder_is_refused_before_anything_is_read(tmp_path, capsys):
    file = write(tmp_path / "texts.csv", rows())
    arguments = ["audit", str(file), "--run", str(tmp_path / "run"), "--backbone", "resnet18"]
    assert main(arguments) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(
        "unknown text encoder resnet18; use tfidf, or hf:NAME (a hub id or folder)"
    )
