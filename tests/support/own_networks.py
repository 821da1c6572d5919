"""Networks of a user's own, as `package.module:function`."""

import torch
from torch import nn
from torchvision.models import ResNet18_Weights

SMALL = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 0.75}


class Averages(nn.Module):
    """Mean red, green and blue: features that one can compute by hand."""

    def forward(self, x):
        return x.mean(dim=(2, 3))


def averages():
    return Averages()


def described():
    return Averages(), {**SMALL, "interpolation": "bicubic"}


def by_preset():
    return Averages(), ResNet18_Weights.DEFAULT.transforms()


def with_head():
    """Random weights: the same ones each time, as a function is called more than once."""
    body = nn.Sequential(Averages(), nn.Linear(3, 5), nn.ReLU())
    return nn.Sequential(body, nn.Linear(5, 4)), {"input_size": (3, 32, 32), "head": "1"}


def maps():
    return nn.Conv2d(3, 2, 1)


def no_module():
    return "resnet18"


def unknown_entry():
    return Averages(), {"size": 3}


def wrong_head():
    return Averages(), {"head": "fc"}


class Faulty(nn.Module):
    def forward(self, x):
        return torch.zeros(2, 3) @ torch.zeros(2, 3)


def faulty():
    return Faulty()
