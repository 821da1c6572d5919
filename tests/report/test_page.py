import base64
import io
import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from PIL import Image
from scipy.stats import spearmanr

from dcai_ray.cleaning.evaluation import Row, comparison
from dcai_ray.cleaning.ranking import ranking
from dcai_ray.errors import UserError
from dcai_ray.report import figures, gallery, trust, verdicts
from dcai_ray.report.findings import Findings, read_findings, summary
from dcai_ray.report.page import without_secrets, write_report
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import write_split
from dcai_ray.storage.location import Location
from tests.support.page_scripts import foreign_scripts

SCRIPT = "<script>alert('x')<"
NASTY = (SCRIPT, 'a "quoted" $x_1$ & name', "Käse 犬 {{ 7 * 7 }}")
EACH = 4  # training images a class


# The page's own blocks, the last of which is its script.
SCRIPTS = re.compile(r"data( (suspects|large|neighbours)-\d+)* None")
_drawn: dict[bytes, str] = {}


@pytest.fixture(autouse=True)
def _plots_are_drawn_once(monkeypatch):
    """Plots are functions of their arguments, and most of these runs have the same values: what was
    drawn for one test is there for the next."""

    def once(draw: Callable[..., str]) -> Callable[..., str]:
        def drawn(*arguments: Any) -> str:
            key = pickle.dumps((draw.__name__, arguments))
            return _drawn.get(key) or _drawn.setdefault(key, draw(*arguments))

        return drawn

    for draw in (figures.histogram, figures.learning_curves, figures.roc, figures.share_losses,
                 figures.convergence):  # fmt: skip
        monkeypatch.setattr(figures, draw.__name__, once(draw))


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
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.text += data

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def page_of(run: RunDirectory) -> Page:
    write_report(read_findings(run))
    return Page(run.report.read_bytes().decode())


def blocks_of(page: Page) -> list[str]:
    return [str(block.get("id")) for block in page.all("script")]


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
    assert {tag for tag, _ in page.tags}.isdisjoint({"iframe", "object"})
    assert not [1 for tag, attributes in page.tags if tag == "b" and attributes]
    html = run.report.read_bytes().decode()
    assert SCRIPTS.fullmatch(" ".join(blocks_of(page)))
    assert html.lower().count("<script") == len(page.all("script"))
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
    assert all(address.startswith(("data:", "#")) for address in addresses)
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
    assert _drawn
    _drawn.clear()
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
    assert "How far to trust" not in page.text


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


def test_without_images_the_text_is_shown_escaped_and_a_long_one_whole_on_demand(run):
    (run.images).delete()
    values = parquet.read_table(run.values)
    ids, labels = values["id"].to_pylist(), values["label"].to_pylist()
    shown = [f"{SCRIPT} number {i}" for i in range(len(ids) - 1)] + ["long & " * 40 + "the end"]
    x = np.arange(len(ids), dtype=np.float32)[:, None]
    write_split(run.features / "train", ids, labels, x, {}, "made-texts", shown=shown)
    page = page_of(run)
    assert all(text in page.text for text in shown[:-1])
    assert foreign_scripts(run.report.read_bytes().decode()) == []
    cut = page.text.index("long & ")
    assert page.text[cut:].replace(" …", "", 1).startswith(shown[-1])
    assert [1 for a in page.all("details") if a.get("class") == "shown"] == [1]


def test_features_of_other_examples_show_nothing(run):
    (run.images).delete()
    x = np.ones((2, 1), np.float32)
    write_split(run.features / "train", ["a", "b"], ["c", "d"], x, {}, "made", shown=["no", "no"])
    assert {entry.shown for entry in gallery.most_suspicious(read_findings(run), 3)} == {""}


def test_an_image_that_is_gone_becomes_a_placeholder(run):
    lowest = 2 * EACH
    path = parquet.read_table(run.images)["path"][lowest].as_py()
    (Location(run.settings()["data"]) / path).delete()
    page = page_of(run)
    assert page.text.count("image can no longer be read") == 1
    thumbnails = [i for i in page.all("img") if (i["src"] or "").startswith("data:image/jpeg")]
    assert len(thumbnails) == len(NASTY) * EACH - 1


def test_thumbnails_keep_the_proportions(run):
    entry = gallery.most_suspicious(read_findings(run), 1)[0]
    content = base64.b64decode(entry.thumbnail.partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (112, 15)  # of 300 x 40


def test_the_gallery_begins_with_the_lowest_value(run):
    write_truth(run)
    write_features(run)
    entries = gallery.most_suspicious(read_findings(run), 3)
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
    assert "Low values separate wrong labels from right ones with an AUC of 1.000" in page.text


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


def test_what_is_wrong_with_the_pictures_is_named_before_all_else(run):
    findings = read_findings(run)
    steps = findings.record["steps"]
    images = {
        **steps["images"],
        "duplicates_under_two_labels": ["a.png = b.png"],
        "blanks": ["c.png", "d.png"],
    }
    leak = {"near_copies_across_splits": ["train/e = shapley_val/f"]}
    compared = {step: {**steps.get(step, {}), **leak} for step in ("values", "probes")}
    shifted = "the labels of val fit by chance; are they in the order of the images?"
    steps = {**steps, "images": images, **compared}
    for step in ("values", "probes"):  # told once
        steps[step] = {**steps[step], "label_doubts": [shifted]}
    found = replace(findings, record={**findings.record, "steps": steps})
    assert f"warning: {shifted}" in summary(found)
    first, *lines = verdicts.warnings(found, [])
    assert first == "T" + shifted[1:]
    assert first not in lines
    assert lines[0].startswith("1 image occurs under more than one label, so one of the labels")
    assert lines[0].endswith("The first: a.png = b.png.")
    assert lines[1].startswith("2 images are blank (one colour only), so nothing can be learnt")
    assert lines[1].endswith("The first: c.png; the others are listed at the end.")
    assert lines[2].startswith("1 image occurs nearly the same in train and in shapley_val, so")
    assert lines[3].startswith("1 image occurs nearly the same in train and in val, which inflates")


def test_a_few_clean_images_are_not_to_be_trusted_over_the_training_set(run):
    write_evidence(run, planted=None, clean=29, rule="doubted")
    assert not any("disagree" in line for line in verdicts.warnings(with_settings(run, 0.1), []))


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
    said = summary(read_findings(run))[0]
    assert (
        said == "3 of 12 training images dropped (25 %), rule validated (the lowest 25 % by value)"
    )
    text = page_of(run).text
    assert "are dropped (25\u00a0%): the lowest 25\u00a0% by value, the smallest share that" in text
    assert "How many to drop" in text


def test_the_curves_of_removal_are_shown_with_their_figures(run):
    complete(run)
    assert "Does the order of the values hold" not in page_of(run).text
    rows = [
        {"order": order, "share": share, "images": 9, "accuracy": accuracy}
        for order, at_20 in (("lowest value", 0.8), ("highest value", 0.4), ("random", 0.6))
        for share, accuracy in ((0.0, 0.7), (0.2, at_20))
    ]
    parquet.write_table(run.removal, pa.Table.from_pylist(rows, schemas.REMOVAL), "any")
    said = "With all of them it is 0.700; without the 20 % of lowest value 0.800, without the 20 %"
    assert said in page_of(run).text
    assert "of highest value 0.400, without as many at random 0.600" in page_of(run).text


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


PLANTED = {
    "images": 200, "share": 0.15, "share_low": 0.12, "share_high": 0.18,
    "recall": 0.81, "recall_low": 0.76, "recall_high": 0.85,
    "false_alarms": 0.03, "false_alarms_low": 0.02, "false_alarms_high": 0.05,
}  # fmt: skip
# By class, four images each: the fourth of class 1 is the most suspicious of all.
WRONG = [0.5, 0.1, 0.1, 0.1, 0.9, 0.25, 0.1, 0.999, 0.4, None, None, None]


def write_evidence(
    run: RunDirectory,
    *,
    separation: float = 0.5,
    planted: dict[str, Any] | None = PLANTED,
    clean: int = 200,
    columns: dict[str, list[Any]] | None = None,
    settings: dict[str, Any] | None = None,
    **choice: Any,
) -> None:
    """As if a rule had decided by evidence."""
    values = parquet.read_table(run.values)
    columns = {"wrong_probability": WRONG, "suggested_probability": [0.625] * 12} | (columns or {})
    for name, column in columns.items():
        if name in values.column_names:
            values = values.drop_columns([name])
        entry = schemas.EVIDENCE if name in schemas.EVIDENCE.names else schemas.VALUES
        values = values.append_column(entry.field(name), pa.array(column, entry.field(name).type))
    choice = choice or {"rule": "wrong", "probability": 0.5, "ordering": "probability"}
    parquet.write_table(run.values, values, "made-evidence", choice=json.dumps(choice))
    note(run, values={"planted": planted, "separation": separation, "clean": clean})
    if settings is not None:
        old = run.settings()
        changed = old | {"value": old["value"] | settings}
        (run.location / "config.yaml").write_bytes(yaml.safe_dump(changed).encode())


def text_of(run: RunDirectory) -> str:
    return re.sub(r"\s+", " ", page_of(run).text)


def test_what_planted_errors_say_stands_before_the_list(run):
    by_class = {NASTY[0]: PLANTED, NASTY[1]: PLANTED | {"share": 0.25}, NASTY[2]: PLANTED}
    write_evidence(run, planted=PLANTED | {"classes": by_class})
    text = text_of(run)
    said = (
        "this list catches 81 (76 to 85); of 100 right labels, it flags 3 (2 to 5). About 15 % "
        "(12 to 18) of the training labels are wrong."
    )
    assert said in text
    assert "Real errors may be easier or harder to find" in text
    places = [text.index(part) for part in ("The values", said, "most likely to be mislabelled")]
    assert places == sorted(places)
    assert f"{NASTY[1]}425 % (12 to 18)81 % (76 to 85)3 % (2 to 5)" in text  # of 4 images
    assert text.index("25 % (12 to 18)81") < text.index("15 % (12 to 18)81")  # the worst first
    assert summary(read_findings(run))[1] == (
        "planted errors: catches 81 % (76 to 85), flags 3 % (2 to 5) of right labels; about 15 % "
        "(12 to 18) of the labels are wrong"
    )


def test_names_of_classes_in_the_trust_section_never_become_markup(run):
    write_evidence(
        run,
        planted=PLANTED | {"classes": dict.fromkeys(NASTY, PLANTED)},
        columns={"reason": [f"{name} & <b>" for name in NASTY for _ in range(EACH)]},
    )
    page_of(run)
    html = run.report.read_bytes().decode()
    assert "<script>alert" not in html
    assert "& <b>" not in html


def test_a_list_that_planted_errors_cannot_test_still_has_a_share(run):
    share = {name: entry for name, entry in PLANTED.items() if name.startswith("share")}
    write_evidence(run, planted={"images": 200, **share})
    text = text_of(run)
    assert "Planted errors cannot test this list" in text
    assert "About 15 % (12 to 18) of the training labels are wrong" in text
    assert summary(read_findings(run))[1] == (
        "planted errors: about 15 % (12 to 18) of the labels are wrong"
    )


@pytest.mark.parametrize(
    ("clean", "validation", "rule", "why", "basis"),
    [
        (0, "self", "doubted", "there is no clean set", "each other only"),
        (12, "clean", "doubted", "has only 12 of the 30 images needed", "each other only"),
        (12, "clean", "zero", "has only 12 of the 30 images needed", "12 images of shapley_val"),
        (90, "self", "doubted", "was not used (value.validation self)", "each other only"),
        (90, "clean", "doubted", "has images of one class only", "each other only"),
    ],
)
def test_without_planted_errors_it_is_said_why_and_what_would_help(
    clean, validation, rule, why, basis, run
):
    write_evidence(
        run, planted=None, clean=clean, settings={"validation": validation}, rule=rule, threshold=0
    )
    text = text_of(run)
    assert "It is not known how many of the wrong labels this list catches" in text
    assert why in text
    assert basis in text
    remedy = "at least 30 images with checked labels"
    if clean == 90 and validation == "self":
        remedy = "The setting value.validation clean would tell"
    assert remedy in text
    assert why in summary(read_findings(run))[1]


def test_pairs_of_classes_have_the_sum_of_the_probabilities(run):
    # All are suggested class 0. Class 1: .9 + .25 + .1 + .999; class 2: .4, and three unknown.
    write_evidence(run)
    pairs = trust.class_pairs(parquet.read_table(run.values), 9)
    assert [pair[:3] for pair in pairs] == [(NASTY[1], NASTY[0], 4), (NASTY[2], NASTY[0], 1)]
    assert [pair[3] for pair in pairs] == pytest.approx([2.249, 0.4])
    assert len(trust.class_pairs(parquet.read_table(run.values), 1)) == 1
    assert "Worst pairs of classes" in text_of(run)


def test_nothing_is_said_of_a_class_that_shapley_val_lacks(run):
    by_class = dict.fromkeys(NASTY, PLANTED)
    write_evidence(
        run,
        planted=PLANTED | {"classes": by_class},
        columns={"wrong_probability": [*WRONG[:8], *[None] * 4]},
    )
    assert text_of(run).count("15 % (12 to 18)81 % (76 to 85)") == 2
    assert f"{NASTY[2]}4– – – " in text_of(run)


def test_the_gallery_is_sorted_by_the_probability_of_a_wrong_label(run):
    write_evidence(run, columns={"reason": [""] * 7 + ["told why"] + [""] * 4})
    found = gallery.most_suspicious(read_findings(run), 12)
    known = sorted((p for p in WRONG if p is not None), reverse=True)
    assert [entry.wrong_probability for entry in found[:9]] == known
    assert np.isnan([entry.wrong_probability for entry in found[9:]]).all()
    # Equal probabilities by value; those of .1 all have .01, and follow each other as they are.
    assert [entry.id for entry in found[:2]] == [f'{NASTY[1]}/{i} "<b>".png' for i in (3, 0)]
    text = text_of(run)
    assert "P(wrong)>99 %" in text.replace(" >", ">")
    assert "told why" in text
    assert f"→ {NASTY[0]}? 62 %" in text


def test_without_probabilities_suspicion_sorts_and_without_that_the_value(run):
    values = parquet.read_table(run.values)
    assert ranking(values).name == "value"
    suspicion = np.linspace(0, 1, 12)
    found = ranking(values.append_column("suspicion", pa.array(suspicion)))
    assert found.name == "suspicion"
    assert found.order.tolist() == list(range(12))[::-1]


def test_the_detection_is_that_of_the_probability(run):
    write_truth(
        run
    )  # wrong are 4 and 8, with .9 and .4: of ten right labels two and one in between
    write_evidence(run)
    # Of the right ones, .999 is above .9; .999 and .5 are above .4.
    auc = (9 + 8) / 20
    assert read_findings(run).detection.auc == pytest.approx(auc, abs=1e-12)
    text = text_of(run)
    assert "P(wrong) separates wrong labels from right ones with an AUC of 0.850" in text
    assert any("detection AUC 0.850 (by P(wrong))" in line for line in summary(read_findings(run)))


def test_a_difference_of_shapley_val_and_train_is_warned_of(run):
    # 12 and 200 images: a standard error is .086, so .75 could be chance and .85 could not.
    write_evidence(run, separation=0.75)
    assert "tells them apart" not in text_of(run)
    assert not any("apart" in line for line in summary(read_findings(run)))
    write_evidence(run, separation=0.85)
    run.report.delete()
    assert "a quick classifier tells them apart (AUC 0.85, chance is 0.5)" in text_of(run)
    assert "As shapley_val and train differ (see the warning above), this may not hold." in text_of(
        run
    )
    told = [line for line in summary(read_findings(run)) if line.startswith("warning: ")]
    assert len(told) == 1
    assert "the images of shapley_val and train differ" in told[0]


def test_a_rule_that_finds_nothing_to_drop_says_that_keeping_is_better(run):
    losses = {"0": 0.5, "0.25": 0.6}
    choice = {"rule": "validated", "share": 0.0, "log_loss": losses}
    write_evidence(run, columns={"decision": ["keep"] * 12}, **choice)
    said = "as far as shapley_val can tell, not cleaning is the better choice"
    assert said in text_of(run)
    assert "The list is empty" in text_of(run)
    assert said in summary(read_findings(run))
    write_evidence(run, columns={"decision": ["keep"] * 12}, rule="zero", threshold=-1.0)
    assert said not in summary(read_findings(run))


def test_undecided_images_are_counted_with_the_most_common_reason(run):
    reasons = ["no image of x"] * 3 + ["too few of y"] + [""] * 8
    columns = {"decision": ["undecided"] * 4 + ["drop"] * 8, "reason": reasons}
    write_evidence(run, columns=columns)
    said = "4 images are undecided and kept; most often (3): no image of x"
    assert said in summary(read_findings(run))
    assert said in text_of(run)
    write_evidence(run, columns=columns | {"decision": ["keep"] * 3 + ["undecided"] + ["drop"] * 8})
    assert "1 image is undecided and kept: too few of y" in summary(read_findings(run))
    write_evidence(run, columns={"decision": ["undecided"] * 12, "reason": [""] * 12})
    said = "12 images are undecided and kept: their intervals contain the cut-off"
    assert said in summary(read_findings(run))


def test_fewer_than_the_chosen_share_are_explained(run):
    share = {"rule": "validated", "share": 0.25, "ordering": "probability"}
    write_evidence(run, **share)
    assert "They are fewer" not in text_of(run)
    # The likeliest errors are the lowest only in the probability of a right label.
    assert "the lowest 25 % by the probability that the label is right" in text_of(run)
    write_evidence(run, columns={"decision": ["drop"] * 2 + ["keep"] * 10}, **share)
    run.report.delete()
    assert "They are fewer, since images that are undecided" in text_of(run)


def test_an_audit_flags_and_drops_nothing(run):
    write_truth(run)
    write_evidence(run, planted=None, clean=0, settings={"validation": "self"}, rule="doubted")
    assert "dropped" not in page_of(run).text
    assert "are flagged (25" in page_of(run).text
    assert not any("dropped" in line for line in summary(read_findings(run)))
    assert summary(read_findings(run))[0].startswith("3 of 12 training images flagged (25 %)")
    assert set(parquet.read_table(run.values)["decision"].to_pylist()) == {"keep", "drop"}


def test_the_expected_number_of_wrong_labels_is_told_where_no_truth_is_known(run):
    # Dropped are the images 0, 4 and 8: .5 + .9 + .4.
    write_evidence(run)
    assert "about 2 of the dropped are mislabelled" in text_of(run)


def test_the_losses_of_the_shares_name_their_ordering_and_the_others(run):
    choice = {
        "rule": "validated", "share": 0.25, "ordering": "self",
        "log_loss": {"0": 1.0, "0.25": 0.5, "0.5": 0.625},
        "orderings": {"value": 0.75, "self": 0.5, "probability": 0.875},
    }  # fmt: skip
    write_evidence(run, **choice)
    text = text_of(run)
    assert (
        "cross-validated log loss on shapley_val of a logistic probe that is trained without"
        in (text)
    )
    assert "each ordering would have chosen: by self-valuation 0.500; by value 0.750; by" in text
    assert "optimistic" not in text
    assert "Images are not dropped by value alone" in text


def test_losses_of_sampled_values_are_optimistic(run):
    write_sampling(run)
    write_evidence(run, rule="validated", share=0.25, log_loss={"0": 1.0, "0.25": 0.5})
    text = text_of(run)
    assert "these losses are optimistic" in text
    assert "cross-validated" not in text


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.9951, ">99\u00a0%"), (0.994, "99\u00a0%"), (0.0, "<1\u00a0%"), (float("nan"), "–")],
)
def test_a_probability_is_never_rounded_to_certainty(probability, words):
    assert verdicts.chance(probability) == words


@pytest.mark.parametrize(("n", "m"), [(60, 40), (30, 200)])
def test_sets_differ_beyond_three_standard_errors_of_equal_distributions(n, m):
    rng = np.random.default_rng(0)
    ranks = np.array([rng.permutation(n + m)[:m].sum() for _ in range(20_000)])
    stderr = ((ranks - m * (m - 1) / 2) / (n * m)).std()  # known to half a per cent
    assert not trust.differ(0.5 + 3.3 * 0.97 * stderr, n, m)
    assert trust.differ(0.5 + 3.3 * 1.03 * stderr, n, m)


@pytest.mark.parametrize(
    ("separation", "m", "found"),
    [(0.59, 10_000, False), (0.61, 10_000, True), (0.1, 10_000, False), (1.0, 0, False)],
)
def test_small_differences_do_not_count_however_certain(separation, m, found):
    assert trust.differ(separation, 10_000, m) == found
