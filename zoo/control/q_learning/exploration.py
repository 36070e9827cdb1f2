"""Exploring policies derived from action values; one parameter moves each from uniform to greedy."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.control.envs.planning import greedy_policy
from zoo.control.policy import Actions, Noise, Observations, Outputs, Policy
from zoo.control.q_learning.q_functions import QTable

_PROPORTIONAL_FLOOR = 0.05  # weight of the worst action; that of the best is 1 + the floor


def epsilon_greedy(action_values: Float[Tensor, "*states actions"], epsilon: float) -> Float[Tensor, "*states actions"]:
    """Return ``π = ε / |A| + (1 - ε) greedy``: a random action with probability ``ε``, otherwise one of the best.

    Example:
        >>> import torch
        >>> epsilon_greedy(torch.tensor([1.0, 3.0]), 0.5)
        tensor([0.2500, 0.7500])
    """
    return epsilon / action_values.shape[-1] + (1 - epsilon) * greedy_policy(action_values)


def boltzmann(action_values: Float[Tensor, "*states actions"], temperature: float) -> Float[Tensor, "*states actions"]:
    """Return ``π(a | s) ∝ exp(Q(s, a) / τ)``; the temperature has the values' units, and 0 is greedy.

    Example:
        >>> import torch
        >>> boltzmann(torch.tensor([0.0, 2.0]), 2 / torch.tensor(3.0).log().item())
        tensor([0.2500, 0.7500])
    """
    if temperature < torch.finfo(action_values.dtype).tiny:
        return greedy_policy(action_values)
    return ((action_values - action_values.amax(-1, keepdim=True)) / temperature).softmax(-1)


def proportional(action_values: Float[Tensor, "*states actions"], power: float) -> Float[Tensor, "*states actions"]:
    """Return ``π(a | s) ∝ (x + 0.05)^κ``, with ``x`` the action value rescaled to [0, 1].

    ``x = (Q - min Q) / (max Q - min Q)`` is 0 for the worst action and 1 for the best. The policy is uniform for
    ``κ = 0`` and approaches the greedy one for large ``κ``. The constant keeps every probability above 0.

    Example:
        >>> import torch
        >>> proportional(torch.tensor([-3.0, -2.0, -1.0]), power=1.0)
        tensor([0.0303, 0.3333, 0.6364])
    """
    below = action_values.amax(-1, keepdim=True) - action_values
    span = below.amax(-1, keepdim=True)
    weight = (1 - below / (1 + _PROPORTIONAL_FLOOR) / span.where(span > 0, 1)) ** power
    return weight / weight.sum(-1, keepdim=True)


EXPLORATIONS = {"epsilon_greedy": epsilon_greedy, "boltzmann": boltzmann, "proportional": proportional}
_PARAMETERS = {  # name and largest value of each one's parameter; the smallest is 0
    "epsilon_greedy": ("epsilon", 1.0),
    "boltzmann": ("temperature", math.inf),
    "proportional": ("power", math.inf),
}


class ExploringPolicy(Policy):
    """Policy that samples actions according to their values, and takes the best one if the noise is 0.

    ``exploration`` is ``epsilon_greedy``, ``boltzmann`` or ``proportional``. ``parameter`` is its ``epsilon``,
    ``temperature`` or ``power``, a buffer that a schedule may change.

    Raises:
        ValueError: the exploration is unknown, or its parameter lies outside the range.

    Example:
        >>> policy = ExploringPolicy(nn.Linear(4, 2), num_actions=2, exploration="epsilon_greedy", parameter=0.1)
        >>> policy.act(torch.zeros(5, 4), policy.noise(5)).shape
        torch.Size([5])
    """

    parameter: Tensor

    def __init__(self, q: nn.Module, num_actions: int, exploration: str, parameter: float):
        super().__init__()
        self.check_parameter(exploration, parameter)
        self.q = q
        self.tabular = isinstance(q, QTable)
        self.noise_size = num_actions
        self.exploration = EXPLORATIONS[exploration]
        self.register_buffer("parameter", torch.tensor(parameter))

    @staticmethod
    def check_parameter(exploration: str, parameter: float) -> None:
        """Check the name of an exploration and the range of its parameter."""
        if exploration not in EXPLORATIONS:
            raise ValueError(f"there is no exploration {exploration!r}; choose one of {', '.join(EXPLORATIONS)}")
        name, largest = _PARAMETERS[exploration]
        if not 0 <= parameter <= largest:
            allowed = f"between 0 and {largest:g}" if math.isfinite(largest) else "0 or more"
            raise ValueError(f"the {name} of exploration={exploration} must be {allowed}, got {parameter}")

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The action values."""
        return self.q

    def probabilities(self, observation: Observations) -> Float[Tensor, "*batch actions"]:
        """Return ``π(a | s)``."""
        return self.exploration(self.q(observation), float(self.parameter))

    def sample_from_noise(self, output: Outputs, noise: Noise) -> Actions:
        """Return actions, counted from 0; the best one where the noise is 0."""
        sampled = (self.exploration(output, float(self.parameter)).log() + noise).argmax(-1)
        return torch.where(noise.any(-1), sampled, output.argmax(-1))
