from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from scipy.stats import binomtest
from torch import Tensor

from zoo.attention.ram.module import RecurrentAttention

BATCH = 1000


class ErrorEstimate(NamedTuple):
    """How often a model is wrong on pictures it has not seen."""

    single: float
    """Fraction of errors with one walk of the mean policy, averaged over the draws of the first glimpse."""
    spread: float
    """Standard deviation of that fraction over the draws."""
    interval: tuple[float, float]
    """95 % interval of ``single`` for a fresh set of as many pictures (Wilson)."""
    averaged: float
    """Fraction of errors when the class probabilities of all draws are averaged first."""
    probabilities: Float[Tensor, "images classes"]
    """Of the first draw."""


def mean_policy_error(
    model: RecurrentAttention,
    images: UInt8[Tensor, "images channels height width"],
    labels: Int[Tensor, " images"],
    draws: int = 10,
    gaze: str | None = None,
) -> ErrorEstimate:
    """Measure the error of the mean policy over several draws of the random first glimpse.

    Args:
        model: in any mode and on any device; it is left as it was.
        images: pictures it was not trained on.
        labels: their classes.
        draws: how many walks a picture gets.
        gaze: look elsewhere than the model would, at one of ``GAZES``; None for the model's own gaze.
    """
    probabilities = torch.stack([class_probabilities(model, images, seed, gaze) for seed in range(draws)])
    errors = (probabilities.argmax(-1) != labels).float().mean(-1)
    wrong = round(errors.mean().item() * len(labels))
    interval = binomtest(wrong, len(labels)).proportion_ci(0.95, method="wilson")
    return ErrorEstimate(
        single=errors.mean().item(),
        spread=errors.std(correction=min(1, draws - 1)).item(),
        interval=(float(interval.low), float(interval.high)),
        averaged=(probabilities.mean(0).argmax(-1) != labels).float().mean().item(),
        probabilities=probabilities[0],
    )


def class_probabilities(
    model: RecurrentAttention,
    images: UInt8[Tensor, "images channels height width"],
    seed: int,
    gaze: str | None = None,
) -> Float[Tensor, "images classes"]:
    """Class probabilities after the last glimpse, computed in batches on the model's device."""
    batches = images.split(BATCH)
    return torch.cat(
        [
            model(batch.to(model.device), seed=seed * len(batches) + i, gaze=gaze).probabilities[-1].cpu()
            for i, batch in enumerate(batches)
        ]
    )
