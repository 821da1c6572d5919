import base64
import io
import json
import re

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dcai_ray.report import assets
from dcai_ray.report.findings import read_findings
from dcai_ray.report.sprites import sprites
from dcai_ray.report.suspects import suspects
from dcai_ray.storage import parquet
from dcai_ray.storage.location import Location
from tests.report.test_page import EACH, NASTY, WRONG, run, write_evidence, write_features

__all__ = ["run"]  # the fixture


def test_suspects_are_those_dropped_likely_wrong_or_with_a_copy(run):
    conflicts = [None] * 12
    conflicts[9] = "like another"
    write_evidence(run, columns={"conflict": conflicts})
    found = suspects(read_findings(run), at_least=0).data["columns"]
    # Dropped are 0, 4 and 8; likely wrong 4 and 7; a copy has 9, which comes first.
    likely = sorted((p for p in (WRONG[0], WRONG[4], WRONG[7], WRONG[8])), reverse=True)
    assert found["wrong"] == [None, *likely]
    assert found["conflict"] == ["like another", "", "", "", ""]
    assert len(suspects(read_findings(run), at_least=12).data["columns"]["id"]) == 12


def test_a_tier_is_shown_where_the_values_have_one(run):
    tiers = ["", *["almost certain"] * 2, *[""] * 9]
    before = parquet.read_table(run.values)
    values, note = (
        before.append_column("tier", pa.array(tiers)),
        parquet.read_note(before, "choice"),
    )
    parquet.write_table(run.values, values, "made-tiers", choice=note)
    found = suspects(read_findings(run), at_least=0).data["columns"]
    assert found["tier"].count("almost certain") == 2
    assert len(found["id"]) == 5  # 0, 4 and 8 are dropped


def test_neighbours_are_counted_by_label_without_the_image_itself(run):
    write_features(run)  # the classes far apart, one number an image: 0, .1, .2, .3
    data = suspects(read_findings(run), at_least=12).data
    for label, near in zip(data["columns"]["label"], data["near"]["train"], strict=True):
        assert near["votes"] == [(label, 2)]
        assert [named for named, _ in near["first"]] == [label, label]


def test_the_same_picture_twice_is_a_duplicate(run):
    rows = parquet.read_table(run.images).to_pylist()
    for i, row in enumerate(rows):
        row["pixels"] = str(i if i != 4 else 0)
    schema = parquet.read_table(run.images).schema
    parquet.write_table(run.images, pa.Table.from_pylist(rows, schema), "made-copies")
    found = suspects(read_findings(run), at_least=12).data["columns"]
    copies = {name for name, copied in zip(found["id"], found["copied"], strict=True) if copied}
    assert copies == {rows[0]["id"], rows[4]["id"]}


def test_each_picture_lies_in_its_own_cell_and_does_not_bleed(tmp_path):
    greys = [(37 * i) % 256 for i in range(103)]
    for i, grey in enumerate(greys):
        Image.new("L", (90, 30 + i), grey).save(tmp_path / f"{i}.png")
    files = [Location(str(tmp_path / f"{i}.png")) for i in range(103)]
    files[50] = Location(str(tmp_path / "gone.png"))
    found = sprites(files, side_px=48)
    assert [found.sizes[50], len(found.sheets)] == [(0, 0), 2]
    for i in (0, 9, 10, 99, 100, 102):
        width, height = found.sizes[i]
        assert max(width, height) == 48
        content = base64.b64decode(found.sheets[i // 100])
        with Image.open(io.BytesIO(content)) as sheet:
            x, y = i % 10 * 48, i % 100 // 10 * 48
            cell = np.asarray(sheet.convert("L").crop((x, y, x + width // 2, y + height // 2)))
        assert abs(cell.astype(int) - greys[i]).max() <= 3  # JPEG


def test_data_cannot_end_its_block(run):
    write_evidence(run, columns={"reason": ["</script><!--<script>"] * 12})
    found = suspects(read_findings(run), at_least=12)
    text = assets.scripts(found)
    block = re.search(r'id="data">(.*)</script>', text).group(1)
    assert "<" not in block
    assert json.loads(block)["columns"]["reason"] == ["</script><!--<script>"] * 12


def test_the_policy_allows_no_inline_code_but_the_page_s_own():
    policy = assets.policy()
    assert "unsafe" not in policy
    assert policy.count("'sha256-") == 2
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("missing", ["images", "features"])
def test_without_images_or_features_the_suspects_are_rows(missing, run):
    if missing == "images":
        write_features(run)
        run.images.delete()
    found = suspects(read_findings(run), at_least=12)
    assert found.data["pictured"] == (0 if missing == "images" else 3 * EACH)
    assert found.data["near"].keys() == ({"train"} if missing == "images" else set())
    assert set(found.data["classes"]) == set(NASTY)
