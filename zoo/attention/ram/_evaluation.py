import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from zoo._stats import wilson_interval
from zoo.attention.ram.module import RecurrentAttention
from zoo.data import ImageSet

BATCH_SIZE = 1000


def error_rates(
    model: RecurrentAttention, test: ImageSet, num_samples: int = 10, location_policy: str | None = None
) -> dict[str, float]:
    """Return error rates of the mean policy, estimated from ``num_samples`` random first locations of each image.

    ``test_error`` is the mean over these samples, ``test_error_std`` their standard deviation, and
    ``test_error_mc10`` the error rate of their averaged class probabilities. ``test_error_low`` and
    ``test_error_high`` are the 95 % Wilson interval of the mean, for a new set of as many images.
    """
    probabilities = torch.stack(
        [class_probabilities(model, test.images, seed, location_policy) for seed in range(num_samples)]
    )
    errors = (probabilities.argmax(-1) != test.labels).float().mean(-1)
    low, high = wilson_interval(round(errors.mean().item() * len(test)), len(test))
    return {
        "test_error": errors.mean().item(),
        "test_error_std": errors.std(correction=min(1, num_samples - 1)).item(),
        "test_error_low": low,
        "test_error_high": high,
        "test_error_mc10": (probabilities.mean(0).argmax(-1) != test.labels).float().mean().item(),
    }


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
