import math
from collections.abc import Sequence

import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from zoo.control._networks import make_network
from zoo.control.envs._spaces import UnsupportedSpaceError, factor_sizes
from zoo.control.policy import Actions, Noise, Observations, Outputs, PerStep, Policy
from zoo.gradients._tensors import at_least_float32

Bounds = Sequence[tuple[float, float]]
_UNBOUNDED = 1e18  # squares of larger numbers overflow in single precision


class CategoricalPolicy(Policy):
    """Policy over one discrete action: ``π(a | s) ∝ exp f_a(s)``, with the logits ``f(s)`` of a network.

    Example:
        >>> policy = CategoricalPolicy(nn.Linear(4, 2), num_actions=2)
        >>> policy.act(torch.zeros(5, 4), policy.noise(5)).shape
        torch.Size([5])
    """

    def __init__(self, net: nn.Module, num_actions: int):
        super().__init__()
        self.net = net
        self.noise_size = num_actions

    def sample_from_noise(self, output: Outputs, noise: Noise) -> Actions:
        """Return actions, counted from 0."""
        return (output + noise).argmax(-1)

    def log_prob_and_entropy(self, observation: Observations, action: Actions) -> tuple[PerStep, PerStep]:
        """Return ``log π(a | s)`` and ``-Σ_a π log π``."""
        log_probs = self.net(observation).log_softmax(-1)
        log_prob = log_probs.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return log_prob, -(log_probs.exp() * log_probs).sum(-1)


class MultiCategoricalPolicy(Policy):
    """Policy over independent discrete factors: ``π(a | s) = Π_i π_i(a_i | s)``, ``π_i(a | s) ∝ exp f_{i,a}(s)``.

    The network returns the logits of all factors, concatenated; factor ``i`` has ``nvec[i]`` values.

    Example:
        >>> policy = MultiCategoricalPolicy(nn.Linear(4, 5), nvec=[2, 3])
        >>> policy.act(torch.zeros(7, 4), policy.noise(7)).shape
        torch.Size([7, 2])
    """

    def __init__(self, net: nn.Module, nvec: Sequence[int]):
        super().__init__()
        self.net = net
        self.nvec, self.noise_size = list(nvec), sum(nvec)

    def sample_from_noise(self, output: Outputs, noise: Noise) -> Actions:
        """Return the factors of actions, each counted from 0."""
        return torch.stack([part.argmax(-1) for part in (output + noise).split(self.nvec, -1)], -1)

    def log_prob_and_entropy(self, observation: Observations, action: Actions) -> tuple[PerStep, PerStep]:
        """Return log-probability and entropy, summed over the factors."""
        log_probs = [part.log_softmax(-1) for part in self.net(observation).split(self.nvec, -1)]
        selected = [part.gather(-1, factor) for part, factor in zip(log_probs, action.split(1, -1), strict=True)]
        return torch.cat(selected, -1).sum(-1), -sum((part.exp() * part).sum(-1) for part in log_probs)


class GaussianPolicy(Policy):
    """Policy over independent coordinates: ``π(a | s) = N(a; μ(s), σ²)``, with ``σ`` independent of the state.

    The log-probability is that of the sampled action, which is clipped to the bounds later.

    Args:
        net: maps observations to one number per coordinate: 0 is the center of its bounds, ±1 are the bounds.
        bounds: lowest and highest value of each coordinate. A bound beyond ±1e18 is replaced by one at a distance of 2
            from the other; if both are, they are replaced by ±1.

    Example:
        >>> policy = GaussianPolicy(nn.Linear(3, 1), bounds=[(-2.0, 2.0)])
        >>> policy.act(torch.zeros(5, 3), policy.noise(5)).shape
        torch.Size([5, 1])
    """

    action_bias: Tensor
    action_scale: Tensor

    def __init__(self, net: nn.Module, bounds: Bounds):
        super().__init__()
        self.net = net
        low, high = torch.tensor(bounds, dtype=torch.float64).T
        bounded_below, bounded_above = low > -_UNBOUNDED, high < _UNBOUNDED
        low = torch.where(bounded_below, low, torch.where(bounded_above, high - 2, -1))
        high = torch.where(bounded_above, high, torch.where(bounded_below, low + 2, 1))
        self.register_buffer("action_bias", ((low + high) / 2).float())
        self.register_buffer("action_scale", ((high - low) / 2).float())
        self.log_std = nn.Parameter(torch.full((len(bounds),), math.log(0.5)))

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Float[Tensor, "*shape action"]:
        """Sample standard normal noise."""
        dtype = at_least_float32(self.log_std.dtype, self.log_std.device)
        return self.log_std.new_empty(*shape, len(self.log_std), dtype=dtype).normal_(generator=generator)

    def sample_from_noise(self, output: Outputs, noise: Noise) -> Actions:
        """Return actions ``μ + σ noise``."""
        return self.mean(output) + self.action_scale * self.log_std.exp() * noise

    def mean(self, output: Tensor) -> Tensor:
        """Return ``μ(s)``, in the action's units."""
        return self.action_bias + self.action_scale * output

    def log_prob_and_entropy(self, observation: Observations, action: Actions) -> tuple[PerStep, PerStep]:
        """Return log-probability and entropy, summed over the coordinates."""
        mean = self.mean(self.net(observation))
        normal = Normal(mean, (self.action_scale * self.log_std.exp()).expand_as(mean), validate_args=False)
        return normal.log_prob(action).sum(-1), normal.entropy().sum(-1)


def action_spec(space: Space) -> int | list[int] | list[tuple[float, float]]:
    """Return an action space as plain data: the number of actions, that of each factor, or bounds of coordinates.

    A ``Box`` of integers extends by half a unit at each end.

    Raises:
        UnsupportedSpaceError: no policy supports the space.

    Example:
        >>> action_spec(Discrete(3)), action_spec(MultiDiscrete([3, 2])), action_spec(Box(-2.0, 2.0, (1,)))
        (3, [3, 2], [(-2.0, 2.0)])
    """
    if isinstance(space, Discrete):
        return int(space.n)
    if isinstance(space, MultiDiscrete | MultiBinary):
        return factor_sizes(space) or []
    if isinstance(space, Box) and space.low.size and space.dtype.kind in "fiu":
        margin = 0.0 if space.dtype.kind == "f" else 0.5
        pairs = zip(space.low.ravel(), space.high.ravel(), strict=True)
        return [(float(low) - margin, float(high) + margin) for low, high in pairs]
    raise UnsupportedSpaceError(
        f"no policy supports the action space {space}: it must be Discrete, MultiDiscrete, MultiBinary, or a Box of "
        "floats or integers"
    )


def make_policy(
    observation_shape: Sequence[int], actions: int | Sequence[int] | Bounds, hidden: Sequence[int]
) -> Policy:
    """Return a policy for actions as described by ``action_spec``: categorical for indices, Gaussian for bounds.

    Example:
        >>> type(make_policy((4,), 2, hidden=(64, 64))).__name__
        'CategoricalPolicy'
        >>> type(make_policy((4,), [2, 3], hidden=(64, 64))).__name__
        'MultiCategoricalPolicy'
    """
    if isinstance(actions, int):
        return CategoricalPolicy(make_network(observation_shape, actions, hidden, last_scale=0.01), actions)
    if all(isinstance(size, int) for size in actions):
        net = make_network(observation_shape, sum(actions), hidden, last_scale=0.01)  # type: ignore[arg-type]
        return MultiCategoricalPolicy(net, actions)  # type: ignore[arg-type]
    return GaussianPolicy(make_network(observation_shape, len(actions), hidden, last_scale=0.01), actions)  # type: ignore[arg-type]
