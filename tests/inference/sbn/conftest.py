from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.inference.sbn import BeliefNetwork

PIXELS = 4


@pytest.fixture
def make_network() -> Callable[..., BeliefNetwork]:
    """A tiny network in double precision with weights of some size, the same at every call."""

    def make(*layers: int, **options: Any) -> BeliefNetwork:
        torch.manual_seed(0)
        network = BeliefNetwork(PIXELS, layers, **options).double()
        network.mean.copy_(torch.tensor([0.2, 0.4, 0.6, 0.8]))
        for weight in network.parameters():
            weight.data.normal_(std=0.8)
        return network

    return make


@pytest.fixture
def x() -> Tensor:
    """A image of four pixels."""
    return torch.tensor([[1.0, 0.0, 1.0, 1.0]], dtype=torch.double)


@pytest.fixture
def every_posterior() -> Callable[[BeliefNetwork, Tensor, int], Iterator[tuple[Tensor, Any]]]:
    """All that the inference network may draw for some particles, each with its probability."""

    def outcomes(network: BeliefNetwork, x: Tensor, particles: int) -> Iterator[tuple[Tensor, Any]]:
        sizes = [particles * units for units in network.layers]
        for bits in product((0.0, 1.0), repeat=sum(sizes)):
            layers = torch.tensor(bits, dtype=x.dtype).split(sizes)
            units = [layer.reshape(particles, 1, -1) for layer in layers]
            posterior = network.infer(x, lambda layer, logits, units=units: units[layer])
            yield torch.stack(posterior.log_q).sum().exp(), posterior

    return outcomes


@pytest.fixture
def gradient() -> Callable[[Tensor, BeliefNetwork], Tensor]:
    """The gradient of a number in all weights of a network, as one vector."""

    def differentiate(loss: Tensor, network: BeliefNetwork) -> Tensor:
        parts = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts])

    return differentiate
