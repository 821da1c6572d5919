import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from scipy.stats import spearmanr

from dcai_ray.cleaning.evaluation import Row, comparison
from dcai_ray.errors import UserError
from dcai_ray.report import gallery, verdicts
from dcai_ray.report.findings import Findings, read_findings, summary
from dcai_ray.report.page import without_secrets, write_report
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location

SCRIPT = "<script>alert('x')<"
NASTY = (SCRIPT, 'a "quoted" $x_1$ & name', "Käse 犬 {{ 7 * 7 }}")
EACH = 4  # training images a class


class Page(HTMLParser):
    """What a browser would make of the page: its tags with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(run: RunDirectory) -> Page:
    write_report(read_findings(run))
    return Page(run.report.read_bytes().decode())


def note(run: RunDirectory, **steps: dict[str, Any]) -> None:
    for name, found in steps.items():
        run.record_step(name, f"made-{name}", 1.5, **found)


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    """A run with nasty names, four images a class, the first of each harmful; every table there."""
    data = tmp_path / "data"
    run = RunDirectory(Location(str(tmp_path / "run")))
    rows = []
    for c, label in enumerate(NASTY):
        for i in range(EACH):
            name = f'{label}/{i} "<b>".png'
            file = data / "train" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (300, 40), (80 * c, 60 * i, 90)).save(file)
            rows.append(
                {"split": "train", "id": name, "label": label, "path": f"train/{name}", "bytes": 9,
                 "width": 300, "height": 40, "sha256": f"{c}{i}"}
            )  # fmt: skip
    parquet.write_table(run.images, pa.Table.from_pylist(rows, schemas.IMAGES), "made-images")
    settings = {
        "data": str(data),
        "value": {"k": 2, "metric": "euclidean", "validation": "clean", "per_class": False},
    }
    (run.location / "config.yaml").write_bytes(yaml.safe_dump(settings).encode())
    note(run, images={"images": {"train": len(rows), "shapley_val": 0, "val": 100}})
    write_values(run, rows)
    return run


def write_values(run: RunDirectory, rows: list[dict[str, Any]]) -> None:
    """The first image of each class has a negative value, is dropped and looks like class 0."""
    values = [
        {"id": row["id"], "label": row["label"], "value": -0.01 * (i + 1) if not i % EACH else 0.01,
         "stderr": 0.0, "low": 0.0, "high": 0.0, "rounds": 0, "evaluated": 0,
         "decision": "keep" if i % EACH else "drop", "suggested_label": NASTY[0],
         "stderr_validation": 0.001}
        for i, row in enumerate(rows)
    ]  # fmt: skip
    choice = {"rule": "validated", "share": 0.25, "log_loss": {"0": 1.0, "0.25": 0.5, "0.5": None}}
    table = pa.Table.from_pylist(values, schemas.VALUES)
    parquet.write_table(run.values, table, "made-values", choice=json.dumps(choice))
    note(run, values={"kept": 9, **choice})


def write_truth(run: RunDirectory) -> None:
    """The dropped images of classes 1 and 2 are labelled wrong, that of class 0 is not."""
    rows = parquet.read_table(run.images).to_pylist()
    lines = ["path,label,true_label"]
    for i, row in enumerate(rows):
        true = NASTY[0] if i in (EACH, 2 * EACH) else row["label"]
        lines.append(
            ",".join('"' + t.replace('"', '""') + '"' for t in (row["path"], row["label"], true))
        )
    (Location(run.settings()["data"]) / "truth.csv").write_bytes("\n".join(lines).encode())


def write_probes(run: RunDirectory, **accuracy: float) -> None:
    rows = [
        {"arm": arm.replace("_", "+"), "probe": "logistic", "seed": seed, "images": 9,
         "loss": 0.5, "accuracy": value, "auroc": 0.9}
        for arm, value in accuracy.items()
        for seed in range(3)
    ]  # fmt: skip
    parquet.write_table(run.probes, pa.Table.from_pylist(rows, schemas.PROBES), "made-probes")


def write_metrics(run: RunDirectory, step: str, *arms: str) -> None:
    rows = [
        {"arm": arm, "backbone": "resnet18", "seed": seed, "epoch": epoch, "split": split,
         "loss": 0.5, "accuracy": 0.5 + 0.1 * epoch + 0.01 * seed, "auroc": 0.8}
        for arm in arms for seed in (0, 1) for epoch in (1, 2) for split in ("train", "val")
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schemas.METRICS)
    parquet.write_table(run.metrics(step), table, f"made-{step}")


def write_features(run: RunDirectory) -> None:
    """One number an image: all images of a class lie close together, the classes far apart."""
    table = parquet.read_table(run.images)
    x = np.repeat([0.0, 10.0, 20.0], EACH) + np.tile(np.arange(EACH) / 10, 3)
    columns = table["id"].to_pylist(), table["label"].to_pylist(), np.float32(x[:, None])
    write_split(run.features / "train", *columns, {}, "made-features")


def complete(run: RunDirectory) -> None:
    write_truth(run)
    write_probes(run, all=0.7, kept=0.8, random=0.7, clean=0.75, kept_clean=0.85, truth=0.9)
    write_metrics(run, "baseline", "all")
    write_metrics(run, "cleaned", "kept", "random")
    write_features(run)


def test_names_from_the_data_never_become_markup(run):
    complete(run)
    page = page_of(run)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "object"})
    assert not [1 for tag, attributes in page.tags if tag == "b" and attributes]
    html = run.report.read_bytes().decode()
    assert "<script" not in html.lower()
    assert '"<b>' not in html
    for name in NASTY:
        assert name in page.text
    assert any(SCRIPT in (image["alt"] or "") for image in page.all("img"))


def test_the_page_needs_no_network(run):
    complete(run)
    page = page_of(run)
    addresses = [
        a[key] or "" for _, a in page.tags for key in ("src", "href", "srcset") if key in a
    ]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    html = run.report.read_bytes().decode()
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_every_picture_has_an_alternative_text_and_every_header_a_scope(run):
    complete(run)
    page = page_of(run)
    assert all(image.get("alt") for image in page.all("img"))
    assert all("scope" in header for header in page.all("th"))


def test_writing_again_changes_no_file(run):
    complete(run)
    write_report(read_findings(run))
    before = {path: (run.location / path).read_bytes() for path, _ in run.location.walk()}
    written = run.report.uri
    first = os.stat(written).st_mtime_ns
    write_report(read_findings(run))
    assert os.stat(written).st_mtime_ns == first
    assert {path: (run.location / path).read_bytes() for path, _ in run.location.walk()} == before


def test_the_same_run_gives_the_same_bytes(run):
    complete(run)
    write_report(read_findings(run))
    first = run.report.read_bytes()
    run.report.delete()
    write_report(read_findings(run))
    assert run.report.read_bytes() == first


def test_new_results_give_a_new_report(run):
    page_of(run)
    first = run.report.read_bytes()
    write_probes(run, all=0.7, kept=0.8, random=0.7)
    page_of(run)
    assert run.report.read_bytes() != first


def test_new_truth_gives_a_new_report(run):
    assert "Were the wrong labels found?" not in page_of(run).text
    write_truth(run)
    assert "Were the wrong labels found?" in page_of(run).text


def test_a_folder_without_any_step_has_a_report(tmp_path):
    page = page_of(RunDirectory(Location(str(tmp_path / "empty"))))
    assert "No image has a value yet" in page.text


def test_a_run_that_only_trained_shows_its_scores_and_curves(tmp_path):
    run = RunDirectory(Location(str(tmp_path)))
    note(run, images={"images": {"train": 5, "val": 5}}, baseline={})
    write_metrics(run, "baseline", "all")
    page = page_of(run)
    assert "resnet18 fine-tuned, trained on every training image: accuracy 0.705" in page.text
    assert "Learning curves" in page.text
    assert "most harmful" not in page.text


def test_without_training_the_report_says_that_the_gain_is_unknown(run):
    page = page_of(run)
    assert "it is not known yet whether dropping helps" in page.text
    assert "Before and after" not in page.text


def test_without_images_ids_are_listed(run):
    (run.images).delete()
    page = page_of(run)
    assert f'{NASTY[2]}/0 "<b>".png' in page.text
    assert not [
        image for image in page.all("img") if (image["src"] or "").startswith("data:image/j")
    ]


def test_an_image_that_is_gone_becomes_a_placeholder(run):
    lowest = 2 * EACH
    path = parquet.read_table(run.images)["path"][lowest].as_py()
    (Location(run.settings()["data"]) / path).delete()
    page = page_of(run)
    assert page.text.count("image can no longer be read") == 1
    thumbnails = [i for i in page.all("img") if (i["src"] or "").startswith("data:image/jpeg")]
    assert len(thumbnails) == len(NASTY) * EACH - 1


def test_thumbnails_keep_the_proportions(run):
    entry = gallery.most_harmful(read_findings(run), 1)[0]
    content = base64.b64decode(entry.thumbnail.partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (112, 15)  # of 300 x 40


def test_the_gallery_begins_with_the_lowest_value(run):
    write_truth(run)
    write_features(run)
    entries = gallery.most_harmful(read_findings(run), 3)
    assert [entry.value for entry in entries] == pytest.approx([-0.09, -0.05, -0.01])
    assert [entry.label for entry in entries] == [NASTY[2], NASTY[1], NASTY[0]]
    assert [entry.truth for entry in entries] == ["wrong", "wrong", "right"]
    # Its class mates are nearest to each image; the image itself does not count.
    assert [entry.neighbours for entry in entries] == [((e.label, 2),) for e in entries]


def test_detection_is_counted_by_hand(run):
    write_truth(run)
    page = page_of(run)
    # Of three dropped two are wrong, and no other is; both have lower values than all right ones.
    assert "precision 67\u00a0%, recall 100\u00a0%" in page.text
    assert "AUC of 1.000" in page.text


def test_losing_to_the_cheap_baselines_is_said(run):
    write_probes(run, all=0.7, kept=0.6, random=0.65, clean=0.6)
    page = page_of(run)
    text = re.sub(r"\s+", " ", page.text)
    assert "Cleaning does not beat training on all images (logistic probe −0.100)" in text
    assert "Cleaning does not beat dropping as many at random (logistic probe −0.050)" in text
    assert (
        "does not beat training on the clean validation set alone (logistic probe +0.000)" in text
    )
    assert "beats every baseline" not in text


def test_winning_clearly_is_said(run):
    write_probes(run, all=0.6, kept=0.9, random=0.6, clean=0.7)
    text = page_of(run).text
    assert "beats every baseline" in text
    assert "does not beat" not in text


def row(arm: str, accuracy: float, spread: float = float("nan")) -> Row:
    return Row("m", arm, 10, accuracy, spread, 0.5, 0.0, 0.0, 0, 2)


@pytest.mark.parametrize(
    ("kept", "spread", "num_val", "outcome"),
    [
        (0.52, 0.01, 0, "better"),
        (0.52, 0.03, 0, "unsettled"),  # within the spread over seeds
        (0.52, 0.01, 100, "unsettled"),  # within sqrt(.5 * .5 / 100) = .05 of chance in val
        (0.52, 0.01, 10_000, "better"),  # .005
        (0.50, 0.0, 0, "not better"),
        (0.49, 0.1, 0, "not better"),
    ],
)
def test_a_gain_counts_when_it_exceeds_the_noise(kept, spread, num_val, outcome):
    rows = [row("kept", kept, spread), row("random", 0.5)]
    assert verdicts.verdicts(rows, num_val)[0].against[0].outcome == outcome


def test_equal_accuracies_that_differ_in_the_last_bit_are_no_gain():
    scores = [
        {"model": "m", "arm": arm, "seed": seed, "images": 5, "accuracy": accuracy, "auroc": 0.5}
        for arm, accuracy in (("kept", 0.1 + 0.2), ("clean", 0.3))
        for seed in range(3)
    ]
    assert verdicts.verdicts(comparison(scores), 0)[0].against[0].outcome == "not better"


def with_settings(run: RunDirectory, agreement: float | None, **value: Any) -> Findings:
    found = read_findings(run)
    parts = {name: getattr(found, name) for name in Findings.__dataclass_fields__}
    settings = {**found.settings, "value": {**found.settings["value"], **value}}
    return Findings(**{**parts, "settings": settings, "agreement": agreement})


def test_validation_by_itself_comes_with_its_weakness(run):
    said = verdicts.warnings(with_settings(run, None, validation="self"), [])
    assert any("fails where wrong labels follow a pattern" in line for line in said)
    said = verdicts.warnings(with_settings(run, None, validation="clean"), [])
    assert not any("follow a pattern" in line for line in said)


def test_values_that_disagree_by_clean_set_and_by_training_set_are_warned_of(run):
    assert any("disagree" in line for line in verdicts.warnings(with_settings(run, 0.1), []))
    assert not any("disagree" in line for line in verdicts.warnings(with_settings(run, 0.8), []))


def test_duplicates_and_notes_are_listed_and_long_lists_cut(run):
    across = [f"train/a{i}.png = val/{SCRIPT}{i}.png" for i in range(12)]
    found = {"images": {"train": 12}, "notes": ["no shapley_val: a half"], "unreadable": 3}
    note(run, images={**found, "duplicates_across_splits": across, "duplicates_in_train": []})
    run.report.delete()
    text = page_of(run).text
    assert "12 images occur in more than one split, which inflates the scores" in text
    assert "and 2 more, in run.json" in text
    assert "no shapley_val: a half" in text
    assert "3 unreadable" in text


def write_sampling(run: RunDirectory, *, imputed: int = 0) -> None:
    """As if the values had been sampled: intervals, a trace, a record."""
    values = parquet.read_table(run.values)
    value = values["value"].to_numpy()
    for name, column in (("low", value - 0.004), ("high", value + 0.004)):
        values = values.set_column(values.column_names.index(name), name, pa.array(column))
    choice = json.dumps({"rule": "certain", "threshold": 0.0, "false_discovery": 0.05})
    parquet.write_table(run.values, values, "made-sampled", choice=choice)
    rows = [
        {"rounds": 64 * i, "waves": i, "seconds": 1.5 * i, "settled": 0.3 * i,
         "max_stderr": 0.01 / i, "rank_correlation": 0.9, "r_hat": 1.01}
        for i in (1, 2, 3)
    ]  # fmt: skip
    parquet.write_table(run.trace, pa.Table.from_pylist(rows, schemas.TRACE), "made-trace")
    run.record_section(
        "sampling", utility=SCRIPT, sampler="permutation", stop="192 rounds", done=True, rounds=192,
        chains=8, insertions=1000, imputed=imputed, compute_seconds=3.0, seconds=4.5, settled=0.9,
        max_stderr=0.0033, r_hat=1.01, workers_lost=2, workers=2,
    )  # fmt: skip


def test_sampled_values_come_with_intervals_and_how_they_were_sampled(run):
    write_sampling(run)
    text = re.sub(r"\s+", " ", page_of(run).text)
    assert "How certain the values are" in text
    assert "192 in 8 chains: permutation" in text
    assert "−0.094 … −0.086" in text  # the lowest value, -.09
    assert "anytime-valid: it holds however often you look and whenever sampling stops" in text
    assert "those that are harmful with certainty (rule certain: false-discovery rate 5" in text
    assert "At most 5 % of the dropped images are expected" in text
    assert "biased" not in text


def test_truncated_values_are_said_to_be_biased(run):
    write_sampling(run, imputed=250)
    assert "25 % of the marginals were not computed" in page_of(run).text


def test_exact_values_have_no_such_section(run):
    assert "How certain the values are" not in page_of(run).text


@pytest.mark.parametrize(
    ("bound", "words"), [(1.0, "No guarantee can be given"), (0.125, "At most 12\u00a0% of")]
)
def test_the_false_discovery_bound_in_words(bound, words):
    assert words in verdicts.false_discovery(bound)


def write_check(run: RunDirectory, value: list[float], half_width: float) -> None:
    """As if a second utility had been sampled beside the values."""
    write_sampling(run)
    table = parquet.read_table(run.values).select(schemas.ESTIMATES.names)
    columns = {"value": value, "low": np.array(value) - half_width}
    columns["high"] = np.array(value) + half_width
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(column))
    parquet.write_table(run.check, table, "made-check")
    trace = parquet.read_table(run.trace)
    parquet.write_table(run.check_trace, trace, "made-check-trace")
    run.record_section("sampling_check", **run.record()["sampling"] | {"utility": "logistic"})


def test_a_cross_check_counts_the_dropped_that_it_finds_harmful_or_useful(run):
    # Dropped are the images 0, 4 and 8: here below zero, unclear, above zero.
    value = [-0.3, 0.1, 0.2, 0.3, 0.01, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    write_check(run, value, 0.05)
    write_truth(run)  # wrong are 4 and 8: of ten right labels one is lower than 4, seven than 8
    check = read_findings(run).check
    assert (check.below, check.above) == (1, 1)
    assert check.auc == pytest.approx((9 + 3) / 20, abs=1e-12)
    own = parquet.read_table(run.values)["value"].to_numpy()
    assert check.rank_correlation == pytest.approx(spearmanr(own, value).statistic, abs=1e-12)
    text = re.sub(r"\s+", " ", page_of(run).text)
    assert "Cross-check: logistic" in text
    assert "among the 3 dropped images, they find 1 harmful with certainty and 1 useful" in text


def test_a_constant_cross_check_has_no_rank_correlation(run):
    write_check(run, [0.5] * 12, 0.1)
    assert "no rank correlation (one of the two is constant)" in page_of(run).text


def with_choice(run: RunDirectory, decision: list[str] | None = None, **choice: Any) -> None:
    values = parquet.read_table(run.values)
    if decision:
        place = values.column_names.index("decision")
        values = values.set_column(place, "decision", pa.array(decision))
    parquet.write_table(run.values, values, "made-choice", choice=json.dumps(choice))


def test_a_rule_that_is_not_known_is_refused_with_the_file(run):
    with_choice(run, rule="best", share=0.25)
    with pytest.raises(UserError, match=r"values\.parquet: rule must be one of .*, got 'best'"):
        read_findings(run)


def test_the_last_lines_and_the_page_name_the_rule(run):
    assert "dropped (25 %), rule validated (the lowest 25 %)" in summary(read_findings(run))[0]
    text = page_of(run).text
    assert "are dropped (25\u00a0%): the lowest 25\u00a0% by value, the share whose" in text
    assert "How many to drop" in text


def test_values_without_a_record_of_their_rule_are_shown_without_it(run):
    with_choice(run)
    assert summary(read_findings(run))[0] == "3 of 12 training images dropped (25 %)"
    assert "are dropped (25\u00a0%). " in page_of(run).text


def test_a_share_of_each_class_has_no_single_cut(run):
    # The dropped of the first class has a higher value than kept images of the others.
    decision = ["drop" if i in (1, 4, 8) else "keep" for i in range(12)]
    with_choice(run, decision, rule="share", share=0.25, per_class=True)
    text = page_of(run).text
    assert "The cut-off differs by class." in text
    assert "of each class by value" in text
    assert "left of the cut" not in text


def test_keys_in_uris_stay_out_of_the_report():
    settings = {"data": "s3://key:secret@bucket/pets?secret_key=1", "deep": [{"x": "who?me"}, 3]}
    assert without_secrets(settings) == {"data": "s3://bucket/pets", "deep": [{"x": "who?me"}, 3]}
