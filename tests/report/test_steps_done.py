"""Which steps a run has, and how far it is."""

import pytest
import yaml

from dcai_ray.report.steps_done import steps_of
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location


def run_with(folder, *sections, **done):
    """A run bound to these sections, of which some steps are done."""
    run = RunDirectory(Location(str(folder)))
    settings = {name: {} for name in sections} | {"extract": {"shard_size": 4}}
    (run.location / "config.yaml").write_bytes(yaml.safe_dump(settings).encode())
    for step, found in done.items():
        run.record_step(step, "made", 1.5, **found)
    return run


@pytest.mark.parametrize(
    ("sections", "steps"),
    [
        (("images", "value"), "images features values"),  # an audit
        (("images", "value", "retrain"), "images features values probes"),  # --no-finetune
        (
            ("images", "finetune", "value", "retrain"),
            "images baseline features values probes cleaned",
        ),
    ],
)
def test_a_run_has_the_steps_of_its_commands(sections, steps, tmp_path):
    assert [step.name for step in steps_of(run_with(tmp_path, *sections))] == steps.split()


def test_an_audit_with_networks_as_evidence_has_no_baseline(tmp_path):
    run = run_with(tmp_path, "images", "finetune", "value")
    settings = run.settings() | {"value": {"evidence": "finetune"}}
    (run.location / "config.yaml").write_bytes(yaml.safe_dump(settings).encode())
    assert [step.name for step in steps_of(run)] == ["images", "features", "values"]


def test_shards_are_counted_until_the_step_is_done(tmp_path):
    run = run_with(tmp_path, "images", images={"images": {"train": 9, "val": 4}})
    for name in ("train/part-00000.parquet", "train/part-00001.parquet", "_val.json"):
        (run.features / name).write_bytes(b"")
    (_, features) = steps_of(run)
    assert features.line == "features  not done, 2 of 4 shards"  # three of train, one of val
    run.record_step("features", "made", 2.5)
    assert steps_of(run)[1].line == "features  done in 2.5 s"
