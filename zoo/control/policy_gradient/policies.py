import math
from collections.abc import Sequence

import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Normal

from zoo.control.envs.spaces import UnsupportedSpaceError, sizes
from zoo.control.networks import network
from zoo.gradients.running import at_least_single

Bounds = Sequence[tuple[float, float]]
UNBOUNDED = 1e18  # squares of larger numbers overflow in single precision


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


def gumbel_noise(like: Tensor, shape: Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Gumbel noise of the type and on the device of a tensor, but of single precision at least: half has ties."""
    noise = like.new_empty(shape, dtype=at_least_single(like.dtype, like.device))
    return noise.exponential_(generator=generator).log_().neg_()


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
        return gumbel_noise(next(self.parameters()), (*shape, self.actions), generator)

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


class MultiCategoricalPolicy(Policy):
    """Makes several choices, each by itself: ``π(a | s) = Π_i π_i(a_i | s)``, with ``π_i(a | s) ∝ exp f_{i,a}(s)``.

    Args:
        net: observations to a logit for each alternative of each choice, one choice after the other.
        alternatives: number of alternatives of each choice.

    Example:
        >>> policy = MultiCategoricalPolicy(nn.Linear(4, 5), alternatives=[2, 3])
        >>> policy.act(torch.zeros(7, 4), policy.noise(7)).shape
        torch.Size([7, 2])
    """

    def __init__(self, net: nn.Module, alternatives: Sequence[int]):
        super().__init__()
        self.net = net
        self.alternatives = list(alternatives)

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Gumbel noise: the largest of ``f_{i,a} + noise_{i,a}`` is a sample of the softmax of choice ``i``."""
        return gumbel_noise(next(self.parameters()), (*shape, sum(self.alternatives)), generator)

    def choose(
        self, output: Float[Tensor, "*batch out"], noise: Float[Tensor, "*batch action"]
    ) -> Shaped[Tensor, "..."]:
        """Sample the choices, each counted from 0."""
        return torch.stack([part.argmax(-1) for part in (output + noise).split(self.alternatives, -1)], -1)

    def log_prob_and_entropy(
        self, observation: Shaped[Tensor, "..."], action: Shaped[Tensor, "..."]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Sum over the choices."""
        log_probs = [part.log_softmax(-1) for part in self.net(observation).split(self.alternatives, -1)]
        taken = [part.gather(-1, choice) for part, choice in zip(log_probs, action.split(1, -1), strict=True)]
        return torch.cat(taken, -1).sum(-1), -sum((part.exp() * part).sum(-1) for part in log_probs)


class GaussianPolicy(Policy):
    """Draws each coordinate of an action by itself: ``π(a | s) = N(a; μ(s), σ²)``, with ``σ`` the same everywhere.

    The action is judged as it was drawn; environments clip it to their bounds, and round it where they want integers.

    Args:
        net: observations to a number for each coordinate, 0 for the middle of its bounds and ±1 for the bounds.
        bounds: lowest and highest value of each coordinate. Where only one is infinite, or beyond ±1e18, the other
            counts as 2 away from it; where both are, they count as ±1.

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
        low, high = torch.tensor(bounds, dtype=torch.float64).T
        bounded_below, bounded_above = low > -UNBOUNDED, high < UNBOUNDED
        low = torch.where(bounded_below, low, torch.where(bounded_above, high - 2, -1))
        high = torch.where(bounded_above, high, torch.where(bounded_below, low + 2, 1))
        self.register_buffer("middle", ((low + high) / 2).float())
        self.register_buffer("reach", ((high - low) / 2).float())
        self.log_std = nn.Parameter(torch.full((len(bounds),), math.log(0.5)))

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Draw from a standard normal distribution."""
        dtype = at_least_single(self.log_std.dtype, self.log_std.device)
        return self.log_std.new_empty(*shape, len(self.log_std), dtype=dtype).normal_(generator=generator)

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


def action_kind(space: Space) -> int | list[int] | list[tuple[float, float]]:
    """Describe an action space as plain data: the number of choices, that of each of several, or bounds of coordinates.

    Integers are coordinates too: each has an interval around it, from half below to half above.

    Raises:
        UnsupportedSpaceError: no policy here fits the space.

    Example:
        >>> action_kind(Discrete(3)), action_kind(MultiDiscrete([3, 2])), action_kind(Box(-2.0, 2.0, (1,)))
        (3, [3, 2], [(-2.0, 2.0)])
    """
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete | MultiBinary):
        return sizes(space) or []
    if isinstance(space, Box) and space.low.size and space.dtype.kind in "fiu":
        margin = 0.0 if space.dtype.kind == "f" else 0.5
        pairs = zip(space.low.ravel(), space.high.ravel(), strict=True)
        return [(float(low) - margin, float(high) + margin) for low, high in pairs]
    raise UnsupportedSpaceError(
        f"no policy fits the action space {space}: it must be Discrete, MultiDiscrete, MultiBinary, or a Box of floats "
        "or integers"
    )


def make_policy(
    observation_shape: Sequence[int], actions: int | Sequence[int] | Bounds, hidden: Sequence[int]
) -> Policy:
    """Make the policy that fits: categorical for one choice or several, Gaussian for bounds of coordinates.

    Example:
        >>> type(make_policy((4,), 2, hidden=(64, 64))).__name__
        'CategoricalPolicy'
        >>> type(make_policy((4,), [2, 3], hidden=(64, 64))).__name__
        'MultiCategoricalPolicy'
    """
    if isinstance(actions, int):
        return CategoricalPolicy(network(observation_shape, actions, hidden, last_scale=0.01), actions)
    if all(isinstance(alternatives, int) for alternatives in actions):
        net = network(observation_shape, sum(actions), hidden, last_scale=0.01)  # type: ignore[arg-type]
        return MultiCategoricalPolicy(net, actions)  # type: ignore[arg-type]
    return GaussianPolicy(network(observation_shape, len(actions), hidden, last_scale=0.01), actions)  # type: ignore[arg-type]
