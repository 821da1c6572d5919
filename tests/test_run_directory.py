import json
import re

import pyarrow as pa
import pytest
import yaml

import dcai_ray
from dcai_ray.api import read_features, read_values
from dcai_ray.config import Config, plain
from dcai_ray.errors import StorageError, UserError
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage import parquet, schemas
from dcai_ray.storage.features import write_manifest
from dcai_ray.storage.location import Location
from dcai_ray.storage.values import kept_table


@pytest.fixture
def run(tmp_path):
    return RunDirectory(Location(str(tmp_path / "a run")))


def sections(**value):
    settings = plain(Config())
    return {"data": "/data", "value": {**settings["value"], **value}, "images": settings["images"]}


def test_every_file_lies_where_the_readme_says(run, tmp_path):
    places = {
        "images.parquet": run.images,
        "skipped.parquet": run.skipped,
        "baseline/metrics.parquet": run.metrics("baseline"),
        "cleaned/model-kept-alexnet-3.safetensors": run.model("cleaned", "kept", "alexnet", 3),
        "cleaned/probes.parquet": run.probes,
        "features": run.features,
        "values/values.parquet": run.values,
        "kept.parquet": run.kept,
        "report.html": run.report,
    }
    for name, place in places.items():
        assert place == Location(str(tmp_path / "a run" / name))


@pytest.mark.parametrize(
    ("folder", "options"),
    [("/data/old.safetensors", ""), ("s3://bucket/a.safetensors", "?region=eu-west-1")],
)
def test_a_training_is_kept_beside_its_model_whatever_the_folder_is_called(folder, options):
    run = RunDirectory(Location(f"{folder}{options}"))
    place = run.checkpoint("cleaned", "kept", "alexnet", 3, "abc").uri
    assert place == f"{folder}/cleaned/model-kept-alexnet-3-abc.checkpoint{options}"


def test_features_may_lie_elsewhere(tmp_path):
    elsewhere = Location(str(tmp_path / "features of another run"))
    assert RunDirectory(Location(str(tmp_path)), elsewhere).features == elsewhere


def test_a_new_folder_has_no_settings_and_no_record_and_reading_makes_no_file(run, tmp_path):
    assert run.settings() == {}
    assert run.record() == {}
    assert list(tmp_path.iterdir()) == []


def test_binding_writes_the_settings_as_yaml(run, tmp_path):
    run.bind_settings(sections(k=3))
    assert run.settings() == sections(k=3)
    text = (tmp_path / "a run/config.yaml").read_text()
    assert yaml.safe_load(text) == sections(k=3)
    assert "k: 3\n" in text


def test_binding_again_with_the_same_settings_changes_no_file(run, tmp_path):
    run.bind_settings(sections())
    before = (tmp_path / "a run/config.yaml").stat()
    run.bind_settings(sections())
    after = (tmp_path / "a run/config.yaml").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_settings_are_refused_with_the_differing_keys_and_stay_as_they_were(run):
    run.bind_settings(sections())
    for file in (run.images, run.values):
        file.write_bytes(b"made with them")
    with pytest.raises(ValueError, match="made with other settings") as caught:
        run.bind_settings({**sections(k=3, metric="euclidean"), "data": "/elsewhere"})
    for part in (
        "data: /data in the run, /elsewhere requested",
        "value.k: 10 in the run, 3 requested",
        "value.metric: cosine in the run, euclidean requested",
        "use another --run",
    ):
        assert part in str(caught.value)
    assert "value.rule" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert run.settings() == sections()


def test_the_rule_of_exact_values_may_change_and_that_of_sampled_ones_may_not(run):
    run.bind_settings(sections(rule="wrong"))
    run.values.write_bytes(b"made with it")
    run.bind_settings(sections(rule="share", drop_share=0.1))
    assert run.settings() == sections(rule="share", drop_share=0.1)
    sampled = {"method": "sample", "rule": "zero"}
    (run.location / "config.yaml").write_bytes(yaml.safe_dump(sections(**sampled)).encode())
    with pytest.raises(ValueError, match="rule: zero in the run, certain requested"):
        run.bind_settings(sections(**{**sampled, "rule": "certain"}))


@pytest.mark.parametrize(
    ("section", "file"),
    [
        ("data", "images.parquet"),
        ("images", "images.parquet"),
        ("finetune", "baseline/model-all-alexnet-0.safetensors"),
        ("finetune", "crossfit/model-fold-0-alexnet-0.safetensors"),
        ("extract", "features/train/part-00000.parquet"),
        ("features", "values/values.parquet"),
        ("value", "values/values.parquet"),
        ("retrain", "cleaned/probes.parquet"),
        ("unheard of", "config.yaml"),
    ],
)
def test_settings_bind_from_the_first_file_made_with_them(run, section, file):
    if file != "config.yaml":
        run.bind_settings({section: "mistaken"})
        run.bind_settings({section: "right"})
        (run.location / file).write_bytes(b"made with them")
    else:
        run.bind_settings({section: "right"})
    with pytest.raises(ValueError, match=f"{section}: right in the run, other requested"):
        run.bind_settings({section: "other"})
    assert run.settings() == {section: "right"}


def test_a_later_step_adds_its_settings_to_those_there(run):
    run.bind_settings(sections())
    run.bind_settings({"retrain": {"probe_seeds": 4}, "value": sections()["value"]})
    assert run.settings() == {**sections(), "retrain": {"probe_seeds": 4}}


@pytest.mark.parametrize("content", ["", "text", "- 1", "a: [1", "\x00", "b: c: d"])
def test_a_folder_with_another_config_yaml_is_refused_in_one_line(run, content):
    (run.location / "config.yaml").write_bytes(content.encode())
    with pytest.raises(ValueError, match=r"config\.yaml: not the settings of a run") as caught:
        run.bind_settings(sections())
    assert "\n" not in str(caught.value)


def test_a_stopping_rule_may_change_though_its_section_has_been_used(run):
    run.bind_settings({"sample": {"rounds": 10, "chains": 8}})
    run.values.write_bytes(b"made with them")
    run.bind_settings({"sample": {"rounds": 20, "chains": 8}})
    assert run.settings() == {"sample": {"rounds": 20, "chains": 8}}
    with pytest.raises(ValueError, match=r"\(sample\.chains: 8 in the run, 4 requested\)"):
        run.bind_settings({"sample": {"rounds": 30, "chains": 4}})


def test_interim_values_are_refused_and_finished_ones_read(run):
    values = pa.Table.from_pylist([{"id": "cat/1", "label": "cat", "value": 0.25}], schemas.VALUES)
    parquet.write_table(run.values, values, "f")
    with pytest.raises(ValueError, match="interim values of an unfinished run; rerun `dcai-ray va"):
        run.read_values()
    parquet.write_table(run.kept, kept_table(values), "f")
    assert run.read_values().equals(values)


def test_a_step_done_is_noted_beside_the_others_with_the_versions(run):
    run.record_step("values", "abc", 1.2345, rule="zero", dropped=3)
    run.record_step("images", "def", 0.5)
    run.record_step("values", "ghi", 2.0, rule="Käse")
    record = json.loads((run.location / "run.json").read_bytes())
    assert record["steps"] == {
        "values": {"fingerprint": "ghi", "seconds": 2.0, "rule": "Käse"},
        "images": {"fingerprint": "def", "seconds": 0.5},
    }
    assert record["versions"]["dcai_ray"] == dcai_ray.__version__
    assert record["versions"]["pyarrow"] == pa.__version__
    assert run.record() == record


def test_a_damaged_record_is_one_line_that_names_it(run):
    (run.location / "run.json").write_bytes(b'{"steps": ')
    with pytest.raises(ValueError, match=r"run\.json: damaged") as caught:
        run.record_step("values", "abc", 1.0)
    assert "\n" not in str(caught.value)


def test_values_are_read_by_folder_or_by_file(run):
    values = pa.Table.from_pylist([{"id": "cat/1", "label": "cat", "value": 0.25}], schemas.VALUES)
    parquet.write_table(run.values, values, "f")
    assert read_values(run.location.uri).equals(values)
    assert dcai_ray.read_values(f"{run.location}/values/values.parquet").equals(values)


@pytest.mark.ray
def test_values_are_read_as_what_one_works_with(small_run, ray_cluster):
    rows = dcai_ray.read_values(str(small_run)).to_pylist()
    assert dcai_ray.read_values(str(small_run), as_="polars").to_dicts() == rows
    assert dcai_ray.read_values(str(small_run), as_="pandas").id.tolist() == [r["id"] for r in rows]
    assert dcai_ray.read_values(str(small_run), as_="ray").take_all() == rows
    with pytest.raises(UserError, match="as_ must be arrow, pandas, polars or ray, got 'csv'"):
        dcai_ray.read_values(str(small_run), as_="csv")


def test_values_that_are_not_there_or_damaged_are_named(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_values(str(tmp_path / "nowhere"))
    run.values.write_bytes(b"PAR1 but no more")
    with pytest.raises(ValueError, match=r"values\.parquet: not a readable Parquet file"):
        read_values(run.location.uri)


def test_features_are_read_by_the_folder_of_a_split(run):
    folder = run.features / "train"
    with pytest.raises(ValueError, match="no complete set of features"):
        read_features(folder.uri)
    table = pa.table({"id": ["cat/1"], "label": ["cat"]}).append_column(
        "feature", pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    )
    parquet.write_table(folder / "any.parquet", table, "f")
    write_manifest(folder, "all", ["any.parquet"])
    found = dcai_ray.read_features(folder.uri)
    assert (found.ids, found.labels, found.x.tolist()) == (("cat/1",), ("cat",), [[1.0, 2.0]])


def test_a_store_that_does_not_answer_is_not_taken_for_a_damaged_record(run, monkeypatch):
    run.record_step("values", "abc", 1.0)

    def refuse(location):
        raise StorageError(f"{location}: the store does not answer")

    monkeypatch.setattr(Location, "read_bytes", refuse)
    with pytest.raises(StorageError, match="does not answer"):
        run.record()


def test_a_record_that_is_json_of_another_kind_is_damaged(run):
    (run.location / "run.json").write_bytes(b"[1]")
    with pytest.raises(UserError, match=r"run\.json: damaged"):
        run.record()


def test_names_of_networks_never_lead_to_another_folder_and_stay_apart():
    run = RunDirectory(Location("/runs/mine"))
    names = ("resnet18", "hf:a/b", "hf:a-b", "timm:a.b", "hf:/tmp/x/../y", "a.b:c")
    files = [run.model("baseline", "all", name, 0) for name in names]
    assert files[0].uri == "/runs/mine/baseline/model-all-resnet18-0.safetensors"
    assert len(set(files)) == len(names)
    for file in files:
        assert re.fullmatch(
            r"/runs/mine/baseline/model-all-[A-Za-z0-9._-]+-0\.safetensors", file.uri
        )
