import math
from collections.abc import Sequence

import torch
from gymnasium.spaces import Box, Discrete, Space
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Normal

from zoo.control.networks import network

Bounds = Sequence[tuple[float, float]]


class Policy(nn.Module):
    """A distribution over actions for each observation.

    An action is a function of the observation and of noise that is drawn before: so whole rollouts draw theirs at once,
    and with noise 0 every policy is greedy, giving its likeliest action.
    """

    net: nn.Module
    """Observations to the numbers that decide the distribution."""

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Draw what ``act`` needs to sample."""
        raise NotImplementedError

    def choose(
        self, output: Float[Tensor, "*batch out"], noise: Float[Tensor, "*batch action"]
    ) -> Shaped[Tensor, "..."]:
        """Sample actions, where the network said ``output``."""
        raise NotImplementedError

    def act(self, observation: Shaped[Tensor, "..."], noise: Float[Tensor, "*batch action"]) -> Shaped[Tensor, "..."]:
        """Sample actions; with noise 0, the likeliest ones."""
        return self.choose(self.net(observation), noise)

    def log_prob_and_entropy(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """``log π(a | s)`` of given actions and the entropy of ``π(· | s)``, in nats."""
        raise NotImplementedError


class CategoricalPolicy(Policy):
    """Chooses one of several actions: ``π(a | s) ∝ exp f_a(s)``.

    Args:
        net: observations to a logit for each action.
        actions: how many there are.

    Example:
        >>> policy = CategoricalPolicy(nn.Linear(4, 2), actions=2)
        >>> policy.act(torch.zeros(5, 4), policy.noise(5)).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, actions: int):
        super().__init__()
        self.net = net
        self.actions = actions

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Gumbel noise: the largest of ``f_a + noise_a`` is a sample of the softmax."""
        weight = next(self.parameters())
        return weight.new_empty(*shape, self.actions).exponential_(generator=generator).log_().neg_()

    def choose(
        self, output: Float[Tensor, "*batch out"], noise: Float[Tensor, "*batch action"]
    ) -> Shaped[Tensor, "..."]:
        """Sample actions, counted from 0."""
        return (output + noise).argmax(-1)

    def log_prob_and_entropy(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """``log π(a | s)`` and ``-Σ_a π log π``."""
        log_probs = self.net(observation).log_softmax(-1)
        log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return log_prob, -(log_probs.exp() * log_probs).sum(-1)


class GaussianPolicy(Policy):
    """Draws each coordinate of an action by itself: ``π(a | s) = N(a; μ(s), σ²)``, with ``σ`` the same everywhere.

    The action is judged as it was drawn; environments clip it to their bounds.

    Args:
        net: observations to a number for each coordinate, 0 for the middle of its bounds and ±1 for the bounds.
        bounds: lowest and highest value of each coordinate; infinite ones count as ±1.

    Example:
        >>> policy = GaussianPolicy(nn.Linear(3, 1), bounds=[(-2.0, 2.0)])
        >>> policy.act(torch.zeros(5, 3), policy.noise(5)).shape
        torch.Size([5, 1])
    """

    middle: Tensor
    reach: Tensor

    def __init__(self, net: nn.Module, bounds: Bounds):
        super().__init__()
        self.net = net
        low, high = torch.tensor(bounds, dtype=torch.float32).clamp(-1e6, 1e6).T
        finite = (high - low) < 1e6
        self.register_buffer("middle", torch.where(finite, (low + high) / 2, 0))
        self.register_buffer("reach", torch.where(finite, (high - low) / 2, 1))
        self.log_std = nn.Parameter(torch.full((len(bounds),), math.log(0.5)))

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Draw from a standard normal distribution."""
        return self.log_std.new_empty(*shape, len(self.log_std)).normal_(generator=generator)

    def choose(
        self, output: Float[Tensor, "*batch out"], noise: Float[Tensor, "*batch action"]
    ) -> Shaped[Tensor, "..."]:
        """Sample actions."""
        return self.mean(output) + self.reach * self.log_std.exp() * noise

    def mean(self, output: Tensor) -> Tensor:
        """``μ(s)``, in the action's units."""
        return self.middle + self.reach * output

    def log_prob_and_entropy(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Sum over the coordinates."""
        mean = self.mean(self.net(observation))
        normal = Normal(mean, (self.reach * self.log_std.exp()).expand_as(mean), validate_args=False)
        return normal.log_prob(action).sum(-1), normal.entropy().sum(-1)


def action_kind(space: Space) -> int | list[tuple[float, float]]:
    """Describe an action space as plain data: the number of choices, or the bounds of each coordinate.

    Raises:
        ValueError: no policy here fits the space.

    Example:
        >>> action_kind(Discrete(3)), action_kind(Box(-2.0, 2.0, (1,)))
        (3, [(-2.0, 2.0)])
    """
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, Box) and len(space.shape) == 1 and space.dtype.kind == "f":
        return [(float(low), float(high)) for low, high in zip(space.low, space.high, strict=True)]
    raise ValueError(f"no policy fits the action space {space}: it must be Discrete, or a Box of one axis of floats")


def make_policy(observation_shape: Sequence[int], actions: int | Bounds, hidden: Sequence[int]) -> Policy:
    """Make the policy that fits: categorical for a number of choices, Gaussian for bounds of coordinates.

    Example:
        >>> type(make_policy((4,), 2, hidden=(64, 64))).__name__
        'CategoricalPolicy'
    """
    if isinstance(actions, int):
        return CategoricalPolicy(network(observation_shape, actions, hidden, last_scale=0.01), actions)
    return GaussianPolicy(network(observation_shape, len(actions), hidden, last_scale=0.01), actions)
