"""The steps in order, each skipping what is there: one function for every way to run them."""

from dcai_ray.config import Config
from dcai_ray.images.folders import Listing
from dcai_ray.report.findings import read_findings
from dcai_ray.run_directory import RunDirectory
from dcai_ray.steps.exact_values import compute_values
from dcai_ray.steps.extraction import extract_features
from dcai_ray.steps.probing import score_probes
from dcai_ray.steps.reading import read_images
from dcai_ray.steps.sampled_values import check_values, compute_sampled_values, estimate_sampling
from dcai_ray.steps.training import retrain_networks, train_baseline
from dcai_ray.storage.location import Location


def run_pipeline(
    run: RunDirectory, data: Location, listing: Listing, config: Config, *, networks: bool
) -> None:
    """Steps 1 to 3; without `networks` the probes alone show what cleaning bought."""
    images = read_images(run, data, listing, config)
    if networks:
        train_baseline(run, images, config)
    extract_features(run, images, config)
    run_valuation(run, config)
    truth = read_findings(run).truth
    score_probes(run, config, truth)
    if networks:
        retrain_networks(run, images, config, truth)


def run_audit(run: RunDirectory, data: Location, listing: Listing, config: Config) -> None:
    """Features and values of a plain folder; nothing is trained."""
    images = read_images(run, data, listing, config)
    extract_features(run, images, config)
    run_valuation(run, config)


def run_baseline(run: RunDirectory, data: Location, listing: Listing, config: Config) -> None:
    """Step 1."""
    train_baseline(run, read_images(run, data, listing, config), config)


def run_extraction(run: RunDirectory, data: Location, listing: Listing, config: Config) -> None:
    """Step 2a."""
    extract_features(run, read_images(run, data, listing, config), config)


def run_valuation(run: RunDirectory, config: Config) -> None:
    """Step 2b, by the method of the settings."""
    if config.value.method == "sample":
        compute_sampled_values(run, config)
        return
    compute_values(run, config)
    if config.sample.check:
        check_values(run, config)


def estimate_valuation(run: RunDirectory, config: Config) -> list[str]:
    """What step 2b would take by sampling: lines for a person; nothing is written."""
    return estimate_sampling(run, config)


def run_probes(run: RunDirectory, config: Config) -> None:
    """Step 3 on features alone."""
    score_probes(run, config, read_findings(run).truth)


def run_retraining(run: RunDirectory, data: Location, listing: Listing, config: Config) -> None:
    """Step 3, with the baseline it is compared with."""
    images = read_images(run, data, listing, config)
    truth = read_findings(run).truth
    score_probes(run, config, truth)
    train_baseline(run, images, config)
    retrain_networks(run, images, config, truth)
