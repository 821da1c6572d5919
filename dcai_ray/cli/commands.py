"""What the commands of the command line do: each parses its flags and calls its steps in order."""

import getpass
import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from dcai_ray import progress
from dcai_ray.cli import flags, logs
from dcai_ray.cli.flags import parse, settings_of
from dcai_ray.cli.results import print_done, print_results
from dcai_ray.config import Config, ValueConfig, parse_config
from dcai_ray.errors import UserError
from dcai_ray.images.listing import Listing
from dcai_ray.images.lists import has_texts
from dcai_ray.images.sources import is_torchvision, list_audit, list_run
from dcai_ray.images.split_folders import parse_splits
from dcai_ray.progress import counted
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
    networks = not chosen.no_finetune
    _pipeline(root, chosen.run, settings, chosen.shown, networks=networks)


def run(arguments: Sequence[str]) -> None:
    """All steps."""
    chosen = parse(flags.Run, arguments, Config(), "run")
    data = _data("--data", chosen.data, chosen.run)
    config = settings_of(chosen)
    if has_texts(data):
        if not chosen.no_finetune:
            progress.say("texts: no networks are fine-tuned")
        _texts(
            data, chosen.run, config, chosen.splits, chosen.value_splits, chosen.shown, whole=True
        )
        return
    _pipeline(
        data, chosen.run, config, chosen.shown, splits=chosen.splits,
        networks=not chosen.no_finetune, value_splits=chosen.value_splits,
    )  # fmt: skip


def audit(arguments: Sequence[str]) -> None:
    """Values of a plain folder by itself, and the report."""
    from dcai_ray.steps import pipeline

    base = Config(value=ValueConfig(validation="self"))
    chosen = parse(flags.Audit, arguments, base, "audit")
    if chosen.value.validation != "self":
        raise UserError("audit has no clean set: value.validation must be self; or use run")
    name = chosen.folder.split(":")[1] if is_torchvision(chosen.folder) else ""
    default = f"outputs/{name or Location(chosen.folder).name}"
    data = _data("FOLDER", chosen.folder, chosen.run or default)
    directory = _directory(chosen.run or default)
    config = settings_of(chosen)
    if has_texts(data):
        _texts(data, directory.location.uri, config, chosen.splits, (), chosen.shown, whole=False)
        return
    listing = list_audit(data, splits=parse_splits(chosen.splits))
    pipeline.run_audit(directory, listing, config)
    print_results(directory, chosen.shown)


def finetune(arguments: Sequence[str]) -> None:
    """Step 1."""
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Finetune, arguments, Config(), "finetune")
    data, config = _data("--data", chosen.data, chosen.run), settings_of(chosen)
    directory = _directory(chosen.run)
    listing = _list(data, chosen.splits, config)
    pipeline.run_baseline(directory, listing, config)
    made = directory.metrics("baseline").uri
    print_done(chosen.shown, f"done: {made}", metrics=made)


def extract(arguments: Sequence[str]) -> None:
    """Step 2a."""
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Extract, arguments, Config(), "extract")
    data, config = _data("--data", chosen.data, chosen.run), settings_of(chosen)
    directory = _directory(chosen.run)
    listing = _list(data, chosen.splits, config)
    pipeline.run_extraction(directory, listing, config)
    made = directory.features.uri
    print_done(chosen.shown, f"done: {made}", features=made)


def value(arguments: Sequence[str]) -> None:
    """Step 2b."""
    from dcai_ray.images.unchanged import follow
    from dcai_ray.steps import pipeline

    chosen = parse(flags.Value, arguments, Config(), "value")
    directory, config = _directory(chosen.run, chosen.features), settings_of(chosen)
    if chosen.dry_run:
        lines = pipeline.estimate_valuation(directory, config)
        print_done(chosen.shown, "\n".join(lines), estimate=lines)
        return
    if chosen.data is not None:
        follow(directory, _lasting("--data", chosen.data))
    players = None if chosen.players is None else _lasting("--players", chosen.players)
    pipeline.run_valuation(directory, config, value_splits=chosen.value_splits, players=players)
    print_results(directory, chosen.shown)


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
        location = _data("--data", str(data), chosen.run)
        listing = _list(location, chosen.splits, config, directory)
        pipeline.run_retraining(directory, listing, config)
    print_results(directory, chosen.shown)


def report(arguments: Sequence[str]) -> None:
    """The report of what is there."""
    chosen = parse(flags.Report, arguments, Config(), "report")
    print_results(_existing(chosen.run, chosen.data), chosen.shown)


def status(arguments: Sequence[str]) -> None:
    """What is done and what is not."""
    from dcai_ray.report.sampling_summary import read_sampled
    from dcai_ray.report.steps_done import steps_of

    chosen = parse(flags.Status, arguments, Config(), "status")
    directory = _existing(chosen.run, chosen.data)
    steps, has_report = steps_of(directory), directory.report.exists()
    sampled = read_sampled(directory)
    if chosen.shown.json:
        done = {step.name: {"seconds": step.seconds, "so_far": step.parts} for step in steps}
        print(json.dumps({"run": directory.location.uri, "steps": done, "report": has_report}))
        return
    print("\n".join(step.line for step in steps))
    print(f"{'report':<10}{'done' if has_report else 'not done'}")
    if sampled:
        print("\n".join(sampled.lines()))


def review(arguments: Sequence[str]) -> None:
    """The suspects in a browser."""
    from dcai_ray.report.findings import read_findings
    from dcai_ray.report.server import Review, serve

    chosen = parse(flags.Review, arguments, Config(), "review")
    by = chosen.by or _login()
    sitting = Review(read_findings(_existing(chosen.run, chosen.data)), by)
    try:
        serve(sitting, chosen.port)
    except KeyboardInterrupt:
        progress.say(f"review ended: {sitting.progress()}")
        raise


def tasks(arguments: Sequence[str]) -> None:
    """The suspects for another tool."""
    from dcai_ray.report.findings import read_findings
    from dcai_ray.report.suspect_list import tasks_of
    from dcai_ray.review import formats, path_formats

    chosen = parse(flags.Tasks, arguments, Config(), "tasks")
    listed, classes = tasks_of(read_findings(_existing(chosen.run, chosen.data)))
    target = _lasting("--to", chosen.to)
    if chosen.format == "label-studio":
        content = formats.label_studio(listed)
    elif chosen.format == "cleanlab":
        content = formats.cleanlab(listed)
    elif chosen.format == "fiftyone":
        content = path_formats.fiftyone(listed, classes)
    else:
        content = path_formats.imagenet(listed, classes)
    target.write_bytes(content)
    said = f"{counted(len(listed), 'tasks')} in {chosen.to}"
    if chosen.format == "label-studio":
        said += f"; the labelling interface of the project:\n{formats.labelling_interface(classes)}"
    print_done(chosen.shown, progress.escaped(said.rstrip()), tasks=len(listed), to=target.uri)


def decide(arguments: Sequence[str]) -> None:
    """People's decisions into a run."""
    from dcai_ray.review.deciding import take_in

    chosen = parse(flags.Decide, arguments, Config(), "decide")
    directory = _existing(chosen.run)
    lines = take_in(directory, Location(chosen.decisions))
    for line in lines:
        logger.info("%s", line)
    said = progress.escaped("\n".join(lines))
    print_done(chosen.shown, said, run=directory.location.uri, decisions=lines)


def export(arguments: Sequence[str]) -> None:
    """The cleaned set as a folder."""
    from dcai_ray.images.export import export_cleaned, undo_in_place

    chosen = parse(flags.Export, arguments, Config(), "export")
    run, target = _existing(chosen.run, chosen.data), _lasting("--to", chosen.to)
    if chosen.undo:
        count = undo_in_place(run, target)
        print_done(chosen.shown, f"{counted(count, 'images')} put back", images=count)
        return
    found = export_cleaned(
        run,
        target,
        chosen.how,
        chosen.apply,
        reviewed_only=chosen.reviewed_only,
    )
    if chosen.how == "in-place":
        said = (
            f"{found.dropped} images moved to {chosen.to}, {found.relabelled} to other classes; "
            f"put back by: dcai-ray export {run.location} --to {chosen.to} --undo"
        )
    else:
        said = f"{counted(found.images, 'images')} in {chosen.to}"
        if found.dropped or found.relabelled:
            said += f" ({found.dropped} dropped, {found.relabelled} relabelled: changes.csv)"
    print_done(
        chosen.shown,
        said,
        images=found.images,
        dropped=found.dropped,
        relabelled=found.relabelled,
        to=chosen.to,
    )


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
    said = f"{count} x {width} features in {folder}"
    print_done(chosen.shown, said, rows=count, columns=width, features=folder.uri)


def completion(arguments: Sequence[str]) -> None:
    """The script that completes commands and flags."""
    from dcai_ray.cli.completion import script

    chosen = parse(flags.Completion, arguments, Config(), "completion")
    found = {name: flags.names(command) for name, command in flags.COMMANDS.items()}
    print(script(chosen.shell, found), end="")


def _login() -> str:
    """The name of the login; a word where there is none, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "someone"


def _list(
    data: Location, splits: Sequence[str], config: Config, run: RunDirectory | None = None
) -> Listing:
    """The images; their splits as the flag says, or as a run's earlier steps had them."""
    named = parse_splits(splits)
    if named is None and run is not None:
        named = run.settings().get("splits")
    return list_run(data, split_seed=config.images.split_seed, splits=named)


def _pipeline(
    data: Location,
    run: str,
    config: Config,
    shown: flags.Shown,
    *,
    splits: Sequence[str] = (),
    networks: bool,
    value_splits: Sequence[str] = (),
) -> None:
    """All steps, each skipping what is there."""
    from dcai_ray.steps import pipeline

    listing = _list(data, splits, config)
    directory = _directory(run)
    pipeline.run_pipeline(directory, listing, config, networks=networks, value_splits=value_splits)
    print_results(directory, shown)


def _texts(
    data: Location,
    run: str,
    config: Config,
    splits: Sequence[str],
    value_splits: Sequence[str],
    shown: flags.Shown,
    *,
    whole: bool,
) -> None:
    """All steps for texts."""
    from dcai_ray.steps import pipeline
    from dcai_ray.steps.texts import read_texts

    texts = read_texts(
        data, whole=whole, split_seed=config.images.split_seed, splits=parse_splits(splits)
    )
    directory = _directory(run)
    pipeline.run_texts(directory, texts, config, value_splits=value_splits)
    print_results(directory, shown)


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


def _data(flag: str, given: str, run: str) -> Location:
    """Where the images lie; a data set of torchvision is written into the run's folder first."""
    if not is_torchvision(given):
        return _lasting(flag, given)
    from dcai_ray.steps.importing import import_torchvision

    return import_torchvision(given, _lasting("--run", run))


def _existing(run: str, data: str | None = None) -> RunDirectory:
    if not (Location(run) / "config.yaml").exists():
        raise UserError(f"{run}: not a run folder (no config.yaml)")
    directory = _directory(run)
    if data is not None:
        from dcai_ray.images.unchanged import follow

        follow(directory, _lasting("--data", data))
    return directory
