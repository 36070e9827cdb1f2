from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from zoo._stats import wilson_interval
from zoo.attention.ram.module import RecurrentAttention

BATCH_SIZE = 1000


class ErrorEstimate(NamedTuple):
    """Error rates of a model on held-out images, as fractions."""

    mean: float
    """Error rate of one trajectory of the mean policy, averaged over samples of the first location."""
    std: float
    """Standard deviation of the error rate over these samples."""
    interval: tuple[float, float]
    """95 % Wilson interval of ``mean``, for a new set of as many images."""
    ensemble: float
    """Error rate if the class probabilities of all samples are averaged first."""
    probabilities: Float[Tensor, "images classes"]
    """Class probabilities of the first sample."""


def mean_policy_error(
    model: RecurrentAttention,
    images: UInt8[Tensor, "images channels height width"],
    labels: Int[Tensor, " images"],
    num_samples: int = 10,
    location_policy: str | None = None,
) -> ErrorEstimate:
    """Estimate the error rate of the mean policy over ``num_samples`` random first locations of each image."""
    probabilities = torch.stack(
        [class_probabilities(model, images, seed, location_policy) for seed in range(num_samples)]
    )
    errors = (probabilities.argmax(-1) != labels).float().mean(-1)
    wrong = round(errors.mean().item() * len(labels))
    return ErrorEstimate(
        mean=errors.mean().item(),
        std=errors.std(correction=min(1, num_samples - 1)).item(),
        interval=wilson_interval(wrong, len(labels)),
        ensemble=(probabilities.mean(0).argmax(-1) != labels).float().mean().item(),
        probabilities=probabilities[0],
    )


def class_probabilities(
    model: RecurrentAttention,
    images: UInt8[Tensor, "images channels height width"],
    seed: int,
    location_policy: str | None = None,
) -> Float[Tensor, "images classes"]:
    """Return the class probabilities after the last glimpse, computed in batches on the model's device."""
    batches = images.split(BATCH_SIZE)
    return torch.cat(
        [
            model(batch.to(model.device), seed * len(batches) + i, location_policy).probabilities[-1].cpu()
            for i, batch in enumerate(batches)
        ]
    )
