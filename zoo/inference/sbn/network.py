from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.gradients._tensors import at_least_float32
from zoo.gradients.estimators import Evaluation, Sampler, bernoulli_sampler
from zoo.inference._bernoulli import bernoulli_log_prob

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "leaky_relu": lambda: nn.LeakyReLU(0.3)}


class Posterior(NamedTuple):
    """Samples of the inference network and their log-probabilities, lowest layer first.

    Example:
        >>> network = BeliefNetwork(pixels=6, layers=(3, 2))
        >>> x = torch.ones(5, 6)
        >>> [units.shape for units in network.infer(x, bernoulli_sampler(network.noise(4, x))).units]
        [torch.Size([4, 5, 3]), torch.Size([4, 5, 2])]
    """

    inputs: list[Float[Tensor, "... batch _"]]
    """Input of each layer: the centered pixels, or the units of the layer below as -1 and 1."""
    units: list[Float[Tensor, "particles batch _"]]
    """``h_1, …, h_L``, 0 or 1, without gradient."""
    log_q: list[Float[Tensor, "particles batch"]]
    """``log q(h_l | h_{l-1})``, in nats, with ``h_0 = x``."""


class BeliefNetwork(nn.Module):
    """Sigmoid belief network and its inference network.

    ``p(x, h) = p(x | h_1) p(h_1 | h_2) … p(h_L)`` with binary units that are conditionally independent given
    the layer above, and ``q(h | x) = q(h_1 | x) … q(h_L | h_{L-1})`` in the opposite direction. Mnih & Gregor, "Neural
    variational inference and learning in belief networks", 2014.

    Args:
        pixels: number of observed units.
        layers: number of stochastic units per layer, lowest first.
        hidden: widths of the deterministic layers between two stochastic layers, in reverse order in ``p``; empty for
            the linear network of the paper.
        activation: activation of the deterministic layers, ``tanh`` or ``leaky_relu``.

    Example:
        >>> network = BeliefNetwork(pixels=6, layers=(3, 2))
        >>> x = torch.ones(5, 6)
        >>> posterior = network.infer(x, bernoulli_sampler(network.noise(4, x)))
        >>> [term.shape for term in network.log_joint(x, posterior.units)]
        [torch.Size([4, 5]), torch.Size([4, 5]), torch.Size([4, 5])]
    """

    mean: Tensor

    def __init__(
        self, pixels: int, layers: Sequence[int] = (200,), hidden: Sequence[int] = (), activation: str = "tanh"
    ):
        super().__init__()
        if not layers or min(pixels, *layers, *hidden) < 1:
            raise ValueError(f"layers need at least 1 unit each, got layers={list(layers)}, hidden={list(hidden)}")
        if activation not in _ACTIVATIONS:
            raise ValueError(f"unknown activation {activation!r}; choose one of {', '.join(_ACTIVATIONS)}")
        self.layers = tuple(layers)
        widths = list(pairwise((pixels, *layers)))
        self.up = nn.ModuleList(_mlp((below, *hidden, above), activation) for below, above in widths)
        self.down = nn.ModuleList(_mlp((above, *reversed(hidden), below), activation) for below, above in widths)
        self.prior_logits = nn.Parameter(torch.zeros(layers[-1]))
        self.register_buffer("mean", torch.full((pixels,), 0.5))

    def initialize_bias(self, mean: Float[Tensor, " pixels"]) -> None:
        """Initialize ``p(x | h_1)`` near the mean of each pixel, by which the input of ``q`` is then centered."""
        self.mean.copy_(mean)
        output = self.down[0][-1]  # type: ignore[index]
        nn.init.normal_(output.weight, std=0.01)
        with torch.no_grad():
            output.bias.copy_(mean.clamp(1e-3, 1 - 1e-3).logit())

    def noise(
        self, num_particles: int, x: Float[Tensor, "batch pixels"], generator: torch.Generator | None = None
    ) -> list[Float[Tensor, "particles batch _"]]:
        """Return uniform noise for each stochastic unit."""
        dtype = at_least_float32(x.dtype, x.device)
        return [
            x.new_empty(num_particles, len(x), units, dtype=dtype).uniform_(generator=generator)
            for units in self.layers
        ]

    def infer(self, x: Float[Tensor, "batch pixels"], sampler: Sampler) -> Posterior:
        """Sample the units layer by layer. The logits of the lowest layer are computed once for all particles."""
        posterior = Posterior([], [], [])
        for layer, net in enumerate(self.up):
            below = _to_plus_minus_one(posterior.units[-1]) if layer else x - self.mean
            logits = net(below)
            units = sampler(layer, logits)
            posterior.inputs.append(below)
            posterior.units.append(units)
            posterior.log_q.append(bernoulli_log_prob(logits, units))
        return posterior

    def log_joint(
        self, x: Float[Tensor, "batch pixels"], units: Sequence[Float[Tensor, "particles batch _"]]
    ) -> list[Float[Tensor, "particles batch"]]:
        """Return the terms of ``log p(x, h)`` in nats: ``log p(x | h_1)``, ``log p(h_1 | h_2)``, …, ``log p(h_L)``."""
        conditionals = zip((x, *units[:-1]), self.down, units, strict=True)
        terms = [bernoulli_log_prob(net(_to_plus_minus_one(above)), below) for below, net, above in conditionals]
        return [*terms, bernoulli_log_prob(self.prior_logits, units[-1])]

    def pixel_probabilities(self, lowest: Float[Tensor, "*dims units"]) -> Float[Tensor, "*dims pixels"]:
        """Return ``p(x = 1 | h_1)`` of each pixel."""
        return self.down[0](_to_plus_minus_one(lowest)).sigmoid()

    def ancestral_sample(self, noise: Sequence[Float[Tensor, "*dims _"]]) -> Float[Tensor, "*dims units"]:
        """Sample the lowest stochastic layer from the prior, with uniform noise for each layer, lowest first."""
        sampler = bernoulli_sampler(noise)
        units = sampler(len(noise) - 1, self.prior_logits)
        for layer in reversed(range(len(noise) - 1)):
            units = sampler(layer, self.down[layer + 1](_to_plus_minus_one(units)))
        return units


class ConditionedNetwork(NamedTuple):
    """A network and a batch of images: the ``LatentModel`` that estimators work on. They differentiate its bound.

    Example:
        >>> ConditionedNetwork(BeliefNetwork(pixels=6, layers=(3, 2)), torch.ones(5, 6)).units
        (3, 2)
    """

    network: BeliefNetwork
    x: Float[Tensor, "batch pixels"]

    @property
    def units(self) -> Sequence[int]:
        """Number of units per layer, lowest first."""
        return self.network.layers

    def noise(self, num_particles: int) -> list[Float[Tensor, "particles batch _"]]:
        """Return uniform noise for each unit."""
        return self.network.noise(num_particles, self.x)

    def evaluate(self, sampler: Sampler) -> Evaluation:
        """Return the log-probabilities of the units that ``sampler`` returns for the logits of each layer."""
        posterior = self.network.infer(self.x, sampler)
        return Evaluation(posterior.inputs, posterior.log_q, self.network.log_joint(self.x, posterior.units))


def _to_plus_minus_one(units: Float[Tensor, "*dims units"]) -> Float[Tensor, "*dims units"]:
    """Map {0, 1} to {-1, 1}; the next layer learns faster from inputs with a mean near 0."""
    return 2 * units - 1


def _mlp(widths: Sequence[int], activation: str) -> nn.Sequential:
    """Return linear layers of these widths with an activation between them."""
    net = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        if len(net):
            net.append(_ACTIVATIONS[activation]())
        net.append(nn.Linear(inputs, outputs))
    return net


def binary_pixels(
    images: Shaped[Tensor, "images channels height width"], shape: tuple[int, int, int]
) -> Float[Tensor, "images pixels"]:
    """Flatten black-and-white images, and convert their pixels (0 and 255 as uint8, 0 and 1 as floats) to 0 and 1.

    Raises:
        ValueError: the batch is empty, the images do not have ``shape``, or a pixel is neither black nor white.

    Example:
        >>> binary_pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), shape=(1, 1, 2))
        tensor([[0., 1.]])
    """
    if len(images) == 0 or tuple(images.shape[1:]) != tuple(shape):
        raise ValueError(
            f"the network was built for images of shape {tuple(shape)}, got a batch of shape {tuple(images.shape)}"
        )
    white = images == (255 if images.dtype == torch.uint8 else 1)
    if not (white | (images == 0)).all():
        raise ValueError("a pixel is neither black nor white, or NaN; binarize the images first")
    return white.flatten(1).to(images.dtype if images.is_floating_point() else torch.get_default_dtype())
