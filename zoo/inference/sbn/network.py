from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients.running import at_least_single
from zoo.inference._bernoulli import bernoulli_log_prob

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"tanh": nn.Tanh, "leaky_relu": lambda: nn.LeakyReLU(0.3)}

Draw = Callable[[int, Tensor], Tensor]
"""``draw(l, logits)`` gives the units of stochastic layer ``l``, 0 or 1, ``(particles, batch, units)``."""


class Posterior(NamedTuple):
    """Samples of the inference network and how probable it held them, lowest layer first."""

    inputs: list[Float[Tensor, "... batch _"]]
    """What each layer saw: the centred pixels, then the units below as -1 and 1."""
    units: list[Float[Tensor, "particles batch _"]]
    """``h_1, …, h_L``, 0 or 1; no gradient reaches them."""
    log_q: list[Float[Tensor, "particles batch"]]
    """``log q(h_l | h_{l-1})``, in nats, with ``h_0 = x``."""


class BeliefNetwork(nn.Module):
    """Sigmoid belief network and its inference network.

    ``p(x, h) = p(x | h_1) p(h_1 | h_2) … p(h_L)`` with binary units that are independent given the layer above, and
    ``q(h | x) = q(h_1 | x) … q(h_L | h_{L-1})`` with the same layers from below. Mnih & Gregor, "Neural variational
    inference and learning in belief networks", 2014.

    Args:
        pixels: number of observed units.
        layers: stochastic units of each layer, the lowest first.
        hidden: widths of the deterministic layers on the way up between two stochastic ones, and in reverse on the
            way down; none for sigmoids of affine maps, the linear network.
        activation: of the deterministic layers, ``tanh`` or ``leaky_relu``.

    Raises:
        ValueError: a width is not positive, there is no layer, or no such activation.

    Example:
        >>> network = BeliefNetwork(pixels=6, layers=(3, 2))
        >>> x = torch.ones(5, 6)
        >>> posterior = network.infer(x, threshold(network.noise(4, x)))
        >>> [term.shape for term in network.log_joint(x, posterior.units)]
        [torch.Size([4, 5]), torch.Size([4, 5]), torch.Size([4, 5])]
    """

    mean: Tensor

    def __init__(
        self, pixels: int, layers: Sequence[int] = (200,), hidden: Sequence[int] = (), activation: str = "tanh"
    ):
        super().__init__()
        if not layers or min(pixels, *layers, *hidden) < 1:
            raise ValueError(f"a network needs layers of 1 unit or more, got {list(layers)} and hidden {list(hidden)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"there is no activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
        self.layers = tuple(layers)
        widths = list(pairwise((pixels, *layers)))
        self.up = nn.ModuleList(perceptron((below, *hidden, above), activation) for below, above in widths)
        self.down = nn.ModuleList(perceptron((above, *reversed(hidden), below), activation) for below, above in widths)
        self.prior_logits = nn.Parameter(torch.zeros(layers[-1]))
        self.register_buffer("mean", torch.full((pixels,), 0.5))

    def begin_at(self, mean: Float[Tensor, " pixels"]) -> None:
        """Centre what the inference network sees, and let ``p(x | h_1)`` begin near the mean of each pixel."""
        self.mean.copy_(mean)
        output = self.down[0][-1]  # type: ignore[index]
        nn.init.normal_(output.weight, std=0.01)
        with torch.no_grad():
            output.bias.copy_(mean.clamp(1e-3, 1 - 1e-3).logit())

    def noise(
        self, particles: int, x: Float[Tensor, "batch pixels"], generator: torch.Generator | None = None
    ) -> list[Float[Tensor, "particles batch _"]]:
        """Draw uniform noise for each stochastic unit."""
        dtype = at_least_single(x.dtype, x.device)
        return [
            x.new_empty(particles, len(x), units, dtype=dtype).uniform_(generator=generator) for units in self.layers
        ]

    def infer(self, x: Float[Tensor, "batch pixels"], draw: Draw) -> Posterior:
        """Go up through the inference network; all that is random is asked from ``draw``.

        The logits of the lowest layer are the same for all particles, and computed once.

        Args:
            x: pixels, 0 or 1.
            draw: see ``threshold``.
        """
        posterior = Posterior([], [], [])
        for layer, net in enumerate(self.up):
            below = signs(posterior.units[-1]) if layer else x - self.mean
            logits = net(below)
            units = draw(layer, logits)
            posterior.inputs.append(below)
            posterior.units.append(units)
            posterior.log_q.append(bernoulli_log_prob(logits, units))
        return posterior

    def log_joint(
        self, x: Float[Tensor, "batch pixels"], units: Sequence[Float[Tensor, "particles batch _"]]
    ) -> list[Float[Tensor, "particles batch"]]:
        """Terms of ``log p(x, h)`` in nats: ``log p(x | h_1)``, ``log p(h_1 | h_2)``, …, ``log p(h_L)``."""
        conditionals = zip((x, *units[:-1]), self.down, units, strict=True)
        terms = [bernoulli_log_prob(net(signs(above)), below) for below, net, above in conditionals]
        return [*terms, bernoulli_log_prob(self.prior_logits, units[-1])]

    def pixel_probabilities(self, lowest: Float[Tensor, "*dims units"]) -> Float[Tensor, "*dims pixels"]:
        """``p(x = 1 | h_1)`` of each pixel."""
        return self.down[0](signs(lowest)).sigmoid()

    def ancestral(self, noise: Sequence[Float[Tensor, "*dims _"]]) -> Float[Tensor, "*dims units"]:
        """Draw the lowest stochastic layer from the prior, from the top down.

        Args:
            noise: uniform, for each layer, the lowest first.
        """
        draw = threshold(noise)
        units = draw(len(noise) - 1, self.prior_logits)
        for layer in reversed(range(len(noise) - 1)):
            units = draw(layer, self.down[layer + 1](signs(units)))
        return units


def threshold(noise: Sequence[Float[Tensor, "*dims _"]]) -> Draw:
    """Turn uniform noise into samples: a unit is 1 where the noise lies below its probability.

    Example:
        >>> threshold([torch.tensor([0.2, 0.7])])(0, torch.zeros(2))
        tensor([1., 0.])
    """
    return lambda layer, logits: torch.lt(
        noise[layer], logits.detach().to(noise[layer].dtype).sigmoid(), out=logits.new_empty(0)
    )


def signs(units: Float[Tensor, "*dims units"]) -> Float[Tensor, "*dims units"]:
    """Write 0 and 1 as -1 and 1: inputs whose mean is near 0 make the next layer learn faster."""
    return 2 * units - 1


def perceptron(widths: Sequence[int], activation: str) -> nn.Sequential:
    """Affine maps from width to width with an activation between them, none after the last."""
    net = nn.Sequential()
    for inputs, outputs in pairwise(widths):
        if len(net):
            net.append(ACTIVATIONS[activation]())
        net.append(nn.Linear(inputs, outputs))
    return net
