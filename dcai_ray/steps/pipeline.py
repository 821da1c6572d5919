"""The steps in order, each skipping what is up to date: one function for every way to run them.

Each holds the run folder while it works and binds it to the settings of its steps first, so that
results of different settings are never mixed, whoever calls it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from dcai_ray.config import Config, plain
from dcai_ray.images.image_set import ImageSet, read_image_set
from dcai_ray.images.listing import Listing
from dcai_ray.images.truth import read_truth
from dcai_ray.images.unchanged import follow
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.backbones import check_backbones, with_names_of_backbones
from dcai_ray.steps.exact_values import compute_values
from dcai_ray.steps.extraction import extract_features
from dcai_ray.steps.group_values import read_players, value_groups
from dcai_ray.steps.out_of_fold import predict_out_of_fold
from dcai_ray.steps.probing import score_probes
from dcai_ray.steps.reading import read_images
from dcai_ray.steps.sampled_values import check_values, compute_sampled_values, estimate_sampling
from dcai_ray.steps.texts import TextSet, encode_texts, encoder_of
from dcai_ray.steps.training import retrain_networks, train_baseline
from dcai_ray.steps.trusted_labels import value_trusted
from dcai_ray.storage.folder_lock import locked
from dcai_ray.storage.location import Location

P = ParamSpec("P")


def _alone(
    steps: Callable[Concatenate[RunDirectory, P], None],
) -> Callable[Concatenate[RunDirectory, P], None]:
    """Steps that nobody else may take in the same run folder at the same time."""

    @wraps(steps)
    def alone(run: RunDirectory, /, *args: P.args, **kwargs: P.kwargs) -> None:
        with locked(run.location):
            steps(run, *args, **kwargs)

    return alone


@_alone
def run_pipeline(
    run: RunDirectory,
    listing: Listing,
    config: Config,
    *,
    networks: bool,
    value_splits: Sequence[str] = (),
) -> None:
    """Steps 1 to 3; without `networks`, the probes alone show what cleaning gained.

    Raises:
        UserError: the run folder belongs to other settings or images; or as the steps.
    """
    trains = networks or config.value.evidence == "finetune"
    first = ("images", "finetune") if trains else ("images",)
    sections = (*first, "extract", "value", "sample", "retrain")
    images, config = _open(run, listing, config, *sections)
    truth = read_truth(images)  # first, as what it refuses would come after all the work
    if networks:
        train_baseline(run, images, config)
    extract_features(run, images, config)
    predict_out_of_fold(run, images, config)
    _value(run, config)
    value_trusted(run, config, value_splits)
    score_probes(run, config, truth)
    if networks:
        retrain_networks(run, images, config, truth)


@_alone
def run_audit(run: RunDirectory, listing: Listing, config: Config) -> None:
    """Features and values of a plain folder; networks are trained only as evidence.

    Raises:
        UserError: as `run_pipeline`.
    """
    first = ("finetune",) if config.value.evidence == "finetune" else ()
    images, config = _open(run, listing, config, *first, "images", "extract", "value")
    read_truth(images)  # the report reads it; what it refuses would come after all the work
    extract_features(run, images, config)
    predict_out_of_fold(run, images, config)
    _value(run, config)


@_alone
def run_texts(
    run: RunDirectory, texts: TextSet, config: Config, *, value_splits: Sequence[str] = ()
) -> None:
    """Features and values of texts, and with a val the probes; no networks are trained.

    Raises:
        UserError: as `run_pipeline`.
    """
    has_val = bool(texts.listing.split("val"))
    names = ("extract", "value", *(("sample", "retrain") if has_val else ()))
    config = replace(config, extract=replace(config.extract, backbone=encoder_of(config)))
    run.bind_settings({"texts": texts.file.uri, **_sections(config, *names)})
    encode_texts(run, texts, config)
    _value(run, config)
    value_trusted(run, config, value_splits)
    if has_val:
        score_probes(run, config, None)


@_alone
def run_baseline(run: RunDirectory, listing: Listing, config: Config) -> None:
    """Step 1.

    Raises:
        UserError: as `run_pipeline`.
    """
    train_baseline(run, *_open(run, listing, config, "images", "finetune"))


@_alone
def run_extraction(run: RunDirectory, listing: Listing, config: Config) -> None:
    """Step 2a.

    Raises:
        UserError: as `run_pipeline`.
    """
    extract_features(run, *_open(run, listing, config, "images", "extract"))


@_alone
def run_valuation(
    run: RunDirectory,
    config: Config,
    *,
    value_splits: Sequence[str] = (),
    players: Location | None = None,
) -> None:
    """Step 2b, by the method of the settings; also of the groups that a file names (`players`).

    Raises:
        UserError: as `run_pipeline`.
    """
    sections = _sections(config, "value", "sample")
    if run.external_features is not None:
        sections["features"] = run.external_features.uri
    groups = None if players is None else read_players(run, config, players)
    run.bind_settings(sections)
    _value(run, config)
    value_trusted(run, config, value_splits)
    if groups is not None:
        value_groups(run, config, groups)


def estimate_valuation(run: RunDirectory, config: Config) -> list[str]:
    """The estimated cost of step 2b by sampling, in lines for the terminal; nothing is written."""
    return estimate_sampling(run, config)


@_alone
def run_probes(run: RunDirectory, config: Config) -> None:
    """Step 3 on features alone.

    Raises:
        UserError: as `run_pipeline`.
    """
    run.bind_settings(_sections(config, "retrain"))
    images = read_image_set(run)
    score_probes(run, config, None if images is None else read_truth(images))


@_alone
def run_retraining(run: RunDirectory, listing: Listing, config: Config) -> None:
    """Step 3, with the baseline that it is compared with.

    Raises:
        UserError: as `run_pipeline`.
    """
    images, config = _open(run, listing, config, "images", "finetune", "retrain")
    truth = read_truth(images)
    score_probes(run, config, truth)
    train_baseline(run, images, config)
    retrain_networks(run, images, config, truth)


def _open(
    run: RunDirectory, listing: Listing, config: Config, *names: str
) -> tuple[ImageSet, Config]:
    """Bind the run folder to the data and these sections, and read the images.

    Also returns the settings with each backbone by its name. What can be wrong with a backbone is
    found out before an image is read.
    """
    config = with_names_of_backbones(run, config, *names)
    if read_image_set(run) is not None:
        follow(run, listing.table or listing.root)
    data = {"data": listing.root.uri, **listing.origin}
    run.bind_settings({**data, **_sections(config, *names)})
    check_backbones(config, *names)
    return read_images(run, listing, config), config


def _sections(config: Config, *names: str) -> dict[str, Any]:
    """Plain settings by section; those of sampling only where there is any."""
    sections = plain(config)
    if config.value.method == "exact" and not config.sample.check:
        del sections["sample"]
    return {name: sections[name] for name in names if name in sections}


def _value(run: RunDirectory, config: Config) -> None:
    if config.value.method == "sample":
        compute_sampled_values(run, config)
        return
    compute_values(run, config)
    if config.sample.check:
        check_values(run, config)
