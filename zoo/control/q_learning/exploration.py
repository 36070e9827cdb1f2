"""Policies made of action values, from uniform to greedy. Each has one number that says how much it explores."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.control.envs.planning import greedy_policy
from zoo.control.policy_gradient.policies import Policy, gumbel_noise

FLOOR = 0.05  # weight of the worst action where the best has 1 + FLOOR


def epsilon_greedy(action_values: Float[Tensor, "*states actions"], epsilon: float) -> Float[Tensor, "*states actions"]:
    """Any action with probability ``ε``, else one of the best: ``π = ε / |A| + (1 - ε) greedy``.

    Example:
        >>> import torch
        >>> epsilon_greedy(torch.tensor([1.0, 3.0]), 0.5)
        tensor([0.2500, 0.7500])
    """
    return epsilon / action_values.shape[-1] + (1 - epsilon) * greedy_policy(action_values)


def boltzmann(action_values: Float[Tensor, "*states actions"], temperature: float) -> Float[Tensor, "*states actions"]:
    """``π(a | s) ∝ exp(Q(s, a) / τ)``; the temperature is in the values' units; 0 is greedy.

    Example:
        >>> import torch
        >>> boltzmann(torch.tensor([0.0, 2.0]), 2 / torch.tensor(3.0).log().item())
        tensor([0.2500, 0.7500])
    """
    if temperature < torch.finfo(action_values.dtype).tiny:
        return greedy_policy(action_values)
    return ((action_values - action_values.amax(-1, keepdim=True)) / temperature).softmax(-1)


def proportional(action_values: Float[Tensor, "*states actions"], power: float) -> Float[Tensor, "*states actions"]:
    """Proportional to how far an action's value lies above the worst one's: ``π(a | s) ∝ (x + 0.05)^κ``.

    ``x = (Q - min Q) / (max Q - min Q)`` is 0 for the worst action and 1 for the best, whatever the rewards' units and
    zero are. The power ``κ`` is 0 for a uniform policy, 1 for a proportional one, and large for a greedy one. The small
    constant gives the worst action, too, a chance to prove better.

    Example:
        >>> import torch
        >>> proportional(torch.tensor([-3.0, -2.0, -1.0]), power=1.0)
        tensor([0.0303, 0.3333, 0.6364])
    """
    below = action_values.amax(-1, keepdim=True) - action_values
    spread = below.amax(-1, keepdim=True)
    weight = (1 - below / (1 + FLOOR) / spread.where(spread > 0, 1)) ** power
    return weight / weight.sum(-1, keepdim=True)


EXPLORATIONS = {"epsilon_greedy": epsilon_greedy, "boltzmann": boltzmann, "proportional": proportional}
LARGEST = {"epsilon_greedy": 1.0, "boltzmann": math.inf, "proportional": math.inf}  # of the number of each; 0 the least


def check_strength(exploration: str, strength: float) -> None:
    """Refuse a number that an exploration has no meaning for.

    Raises:
        ValueError: there is no such exploration, or the number lies outside its range.

    Example:
        >>> check_strength("boltzmann", 2.0)
    """
    if exploration not in EXPLORATIONS:
        raise ValueError(f"there is no exploration {exploration!r}; choose one of {', '.join(EXPLORATIONS)}")
    if not 0 <= strength <= LARGEST[exploration]:
        allowed = f"between 0 and {LARGEST[exploration]:g}" if math.isfinite(LARGEST[exploration]) else "0 or more"
        raise ValueError(f"the number that says how much {exploration} explores must be {allowed}, got {strength}")


class ExploringPolicy(Policy):
    """Acts by action values that are being learned; with noise 0, by the best of them.

    Args:
        q: observations to a value of each action.
        actions: how many there are.
        exploration: a name of ``EXPLORATIONS``.
        strength: the number that says how much it explores; a buffer, for whoever anneals it.

    Raises:
        ValueError: there is no such exploration, or the number lies outside its range.

    Example:
        >>> policy = ExploringPolicy(nn.Linear(4, 2), actions=2, exploration="epsilon_greedy", strength=0.1)
        >>> policy.act(torch.zeros(5, 4), policy.noise(5)).shape
        torch.Size([5])
    """

    strength: Tensor

    def __init__(self, q: nn.Module, actions: int, exploration: str, strength: float):
        super().__init__()
        check_strength(exploration, strength)
        self.q = q
        self.actions = actions
        self.exploration = EXPLORATIONS[exploration]
        self.register_buffer("strength", torch.tensor(strength))

    @property
    def net(self) -> nn.Module:  # type: ignore[override]
        """The action values decide."""
        return self.q

    def probabilities(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch actions"]:
        """``π(a | s)``."""
        return self.exploration(self.q(observation), float(self.strength))

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Gumbel noise: the largest of ``log π(a | s) + noise_a`` is a sample."""
        return gumbel_noise(next(self.parameters()), (*shape, self.actions), generator)

    def choose(
        self, output: Float[Tensor, "*batch out"], noise: Float[Tensor, "*batch action"]
    ) -> Shaped[Tensor, "..."]:
        """Sample actions, counted from 0; where the noise is 0, the best one."""
        sampled = (self.exploration(output, float(self.strength)).log() + noise).argmax(-1)
        return torch.where(noise.any(-1), sampled, output.argmax(-1))
