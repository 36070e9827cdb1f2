from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.attention import GlimpseSensor, RecurrentAttention, RecurrentAttentionNetwork

IMAGE_SHAPE = (1, 9, 7)
CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def images() -> Tensor:
    """Eight images of noise, 0 to 255."""
    return torch.randint(256, (8, *IMAGE_SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def labels() -> Tensor:
    """Their classes."""
    return torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.fixture
def make_network() -> Callable[..., RecurrentAttentionNetwork]:
    """A network for these images, the same at every call."""

    def make(**options: Any) -> RecurrentAttentionNetwork:
        torch.manual_seed(0)
        return RecurrentAttentionNetwork(GlimpseSensor(IMAGE_SHAPE, patch_size=3), len(CLASSES), **options)

    return make


@pytest.fixture
def make_model() -> Callable[..., RecurrentAttention]:
    """A model for these images, the same at every call; `baseline`, `scale` and `name` are the estimator's."""

    def make(
        baseline: str = "learned", scale: bool = False, name: str = "reinforce", **options: Any
    ) -> RecurrentAttention:
        torch.manual_seed(0)
        estimator = {"name": name, "baseline": baseline, "scale": scale}
        steady = {"location_std": 0.1, "final_location_std": None}  # annealing needs a trainer
        small = {"image_shape": IMAGE_SHAPE, "classes": CLASSES, "num_glimpses": 3, "patch_size": 3, **steady}
        return RecurrentAttention(**small | options, estimator=estimator)

    return make
