"""The networks of a run: chosen where none is named, and checked before an image is read."""

import os
from dataclasses import replace

from dcai_ray import progress
from dcai_ray.config import AUTO, Config, ExtractConfig
from dcai_ray.errors import UserError
from dcai_ray.run_directory import RunDirectory


def with_names_of_backbones(run: RunDirectory, config: Config, *sections: str) -> Config:
    """The settings with each network by its full name, one chosen where none is named.

    A run that has features keeps the network that they come from, so that a rerun does not choose
    another one because more are at hand.

    Args:
        run: the run folder.
        config: the settings.
        sections: those that the coming steps use; of these, extract and finetune name networks.
    Raises:
        UserError: no network is named, none is at hand, and none can be downloaded.
    """
    if "finetune" in sections:
        recipe = config.finetune
        names = tuple(_full_name(name) for name in recipe.backbones)
        config = replace(config, finetune=replace(recipe, backbones=names))
    if "extract" in sections:
        settings = config.extract
        name = _chosen(run, settings) if settings.backbone == AUTO else settings.backbone
        config = replace(config, extract=replace(settings, backbone=_full_name(name)))
    return config


def check_backbones(config: Config, *sections: str) -> None:
    """Find out whatever can be wrong with the networks of these sections.

    Raises:
        UserError: a network is unknown, its weights cannot be obtained, or the images are too small
            for it.
    """
    from dcai_ray.networks.backbones import check

    if "finetune" in sections:
        recipe = config.finetune
        for name in recipe.backbones:
            check(name, recipe.weights, recipe.size_px, training=True)
    if "extract" in sections:
        settings = config.extract
        check(settings.backbone, settings.weights, settings.size_px)


def _chosen(run: RunDirectory, settings: ExtractConfig) -> str:
    """The network of the features that are there; otherwise the best one at hand."""
    from dcai_ray.networks.choice import best_at_hand

    if run.features.exists():
        there = run.settings().get("extract", {}).get("backbone")
        if there:
            return str(there)
    if settings.weights == "none":
        return "resnet18"
    if settings.weights != "imagenet":
        raise UserError(
            f"weights {settings.weights}: of which network? Name it with extract.backbone"
        )
    name, line = best_at_hand()
    progress.say(line)
    return name


def _full_name(name: str) -> str:
    """The name, with the full path of a local folder, as workers may be elsewhere."""
    origin, _, rest = name.partition(":")
    return f"hf:{os.path.abspath(rest)}" if origin == "hf" and os.path.isdir(rest) else name
