"""What the commands of the command line do: each parses its flags and calls its steps in order."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from dcai_ray import progress
from dcai_ray.cli import flags, logs
from dcai_ray.cli.flags import parse, settings_of
from dcai_ray.config import Config, ValueConfig, parse_config
from dcai_ray.errors import UserError
from dcai_ray.images.listing import Listing
from dcai_ray.images.sources import list_audit, list_run
from dcai_ray.images.split_folders import parse_splits
from dcai_ray.run_directory import RunDirectory
from dcai_ray.storage.location import Location

logger = logging.getLogger(__name__)

_UNPACKED = "/runtime_resources/working_dir_files/"  # where Ray lays a job's --working-dir


def demo(arguments: Sequence[str]) -> None:
    """Write the embedded demo set; all steps on it."""
    from dcai_ray.images.demo_digits import SETTINGS, write_digits

    chosen = parse(flags.Demo, arguments, Config(), "demo")
    root = _lasting("--data", chosen.data)
    if not (root / "truth.csv").exists():
        if root.exists():
            raise UserError(f"{root}: exists, but is no finished demo set; delete it or use --data")
        progress.say(f"writing the demo set to {root}")
        write_digits(root)
    settings = parse_config(SETTINGS, "demo")
    settings = replace(settings, resources=chosen.resources)
    _pipeline(root, chosen.run, settings, no_finetune=chosen.no_finetune)


def run(arguments: Sequence[str]) -> None:
    """All steps."""
    chosen = parse(flags.Run, arguments, Config(), "run")
    data = _lasting("--data", chosen.data)
    config = settings_of(chosen)
    _pipeline(data, chosen.run, config, splits=chosen.splits, no_finetune=chosen.no_finetune)


def audit(arguments: Sequence[str]) -> None:
    """Values of a plain folder by itself, and the report."""
    from dcai_ray.steps import pipeline

    base = Config(value=ValueConfig(validation="self"))
    chosen = parse(flags.Audit, arguments, base, "audit")
    if chosen.value.validation != "self":
        raise UserError("audit has no clean set: value.validation must be self; or use run")
    data = _lasting("FOLDER", chosen.folder)
    directory = _directory(chosen.run or f"outputs/{data.name}")
    config = settings_of(chosen)
    listing = list_audit(data, splits=parse_splits(chosen.splits))
    pipeline.run_audit(directory, listing, config)
    _finish(directory)


def finetune(arguments: Sequence[str]) -> None:
    """Step 1."""
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Finetune, arguments, Config(), "finetune")
    data, config = _lasting("--data", chosen.data), settings_of(chosen)
    directory = _directory(chosen.run)
    listing = _list(data, chosen.splits, config)
    pipeline.run_baseline(directory, listing, config)
    print(f"done: {directory.metrics('baseline')}")


def extract(arguments: Sequence[str]) -> None:
    """Step 2a."""
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Extract, arguments, Config(), "extract")
    data, config = _lasting("--data", chosen.data), settings_of(chosen)
    directory = _directory(chosen.run)
    listing = _list(data, chosen.splits, config)
    pipeline.run_extraction(directory, listing, config)
    print(f"done: {directory.features}")


def value(arguments: Sequence[str]) -> None:
    """Step 2b."""
    from dcai_ray.report.findings import read_findings, summary
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Value, arguments, Config(), "value")
    directory, config = _directory(chosen.run, chosen.features), settings_of(chosen)
    if chosen.dry_run:
        print("\n".join(pipeline.estimate_valuation(directory, config)))
        return
    pipeline.run_valuation(directory, config)
    results = _logged(summary(read_findings(directory)))
    print("\n".join([*results, f"values: {directory.values}"]))


def retrain(arguments: Sequence[str]) -> None:
    """Step 3."""
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Retrain, arguments, Config(), "retrain")
    directory, config = _directory(chosen.run), settings_of(chosen)
    there = directory.settings()
    data = chosen.data or there.get("list") or there.get("data")
    if not chosen.no_finetune and data is None:
        raise UserError(
            f"{directory.location}: no images known to fine-tune on; give --data, or --no-finetune"
        )
    if chosen.no_finetune:
        pipeline.run_probes(directory, config)
    else:
        location = _lasting("--data", str(data))
        listing = _list(location, chosen.splits, config, directory)
        pipeline.run_retraining(directory, listing, config)
    _finish(directory)


def report(arguments: Sequence[str]) -> None:
    """The report of what is there."""
    chosen = parse(flags.Report, arguments, Config(), "report")
    _finish(_existing(chosen.run, chosen.data))


def status(arguments: Sequence[str]) -> None:
    """What is done and what is not."""
    from dcai_ray.report.sampling_summary import read_sampled

    chosen = parse(flags.Status, arguments, Config(), "status")
    directory = _existing(chosen.run)
    steps = directory.record().get("steps", {})
    for step in ("images", "baseline", "features", "values", "probes", "cleaned"):
        done = f"done in {steps[step]['seconds']:g} s" if step in steps else "not done"
        print(f"{step:<10}{done}")
    print(f"{'report':<10}{'done' if directory.report.exists() else 'not done'}")
    sampled = read_sampled(directory)
    if sampled:
        print("\n".join(sampled.lines()))


def export(arguments: Sequence[str]) -> None:
    """The cleaned set as a folder."""
    from dcai_ray.images.export import export_kept

    chosen = parse(flags.Export, arguments, Config(), "export")
    count = export_kept(_existing(chosen.run, chosen.data), _lasting("--to", chosen.to), chosen.how)
    print(f"{count} images in {chosen.to}")


def import_features(arguments: Sequence[str]) -> None:
    """Features of a file as Parquet."""
    from dcai_ray.steps import feature_import

    chosen = parse(flags.ImportFeatures, arguments, Config(), "import-features")
    folder = _lasting("--features", chosen.features) / chosen.split
    labels = Location(chosen.labels) if chosen.labels else None
    count, width = feature_import.import_features(
        Location(chosen.file),
        labels,
        folder,
        chosen.backbone,
        show=chosen.show,
        standardize=chosen.standardize,
    )
    print(f"{count} x {width} features in {folder}")


def _list(
    data: Location, splits: Sequence[str], config: Config, run: RunDirectory | None = None
) -> Listing:
    """The images; their splits as the flag says, or as a run's earlier steps had them."""
    named = parse_splits(splits)
    if named is None and run is not None:
        named = run.settings().get("splits")
    return list_run(data, split_seed=config.images.split_seed, splits=named)


def _pipeline(
    data: Location, run: str, config: Config, *, splits: Sequence[str] = (), no_finetune: bool
) -> None:
    """All steps, each skipping what is there."""
    from dcai_ray.steps import pipeline

    listing = _list(data, splits, config)
    directory = _directory(run)
    pipeline.run_pipeline(directory, listing, config, networks=not no_finetune)
    _finish(directory)


def _finish(directory: RunDirectory) -> None:
    """The report, the table and the last lines."""
    from dcai_ray.report.findings import read_findings, summary, text_table
    from dcai_ray.report.page import write_report

    findings = read_findings(directory)
    results = _logged(summary(findings))
    write_report(findings)
    if findings.table:
        print(text_table(findings.table))
        print()
    print("\n".join([*results, f"report: {directory.report}"]))


def _logged(results: Sequence[str]) -> list[str]:
    """Results, logged for those who look later, as they may be printed."""
    for text in results:
        logger.info("%s", text)
    return [progress.escaped(text) for text in results]


def _directory(run: str, features: str | None = None) -> RunDirectory:
    location = _lasting("--run", run)
    logs.keep_in(location)
    where = features or RunDirectory(location).settings().get("features")
    if not where:
        return RunDirectory(location)
    return RunDirectory(location, _lasting("--features", str(where)))


def _lasting(flag: str, uri: str) -> Location:
    """Where a flag points; refused inside a submitted job's own copy of its working directory."""
    location = Location(uri)
    if _UNPACKED in location.uri:
        raise UserError(
            f"{flag} {uri}: lies in the submitted job's own folder, a temporary copy that no other "
            "job sees; give a URI, or an absolute path that every machine sees"
        )
    return location


def _existing(run: str, data: str | None = None) -> RunDirectory:
    if not (Location(run) / "config.yaml").exists():
        raise UserError(f"{run}: not a run folder (no config.yaml)")
    directory = _directory(run)
    if data is not None:
        from dcai_ray.images.unchanged import follow

        follow(directory, _lasting("--data", data))
    return directory
