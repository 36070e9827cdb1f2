import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from zoo.control._networks import ConvEncoder, flatten_observation, is_image, mlp_layers


class QTable(nn.Module):
    """Table of action values, one for each state and action, initialized to 0.

    Example:
        >>> QTable(num_states=16, num_actions=4)(torch.tensor([3, 5])).shape
        torch.Size([2, 4])
    """

    def __init__(self, num_states: int, num_actions: int, dtype: torch.dtype | None = None):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(num_states, num_actions, dtype=dtype))

    def forward(self, state: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        """Return the rows of states."""
        return self.values[state]


class Dueling(nn.Module):
    """Dueling head ``Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')``.

    Wang et al., "Dueling network architectures for deep reinforcement learning", 2016, equation 9.

    Example:
        >>> Dueling(in_features=64, num_actions=2)(torch.zeros(5, 64)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_features: int, num_actions: int):
        super().__init__()
        self.value, self.advantage = nn.Linear(in_features, 1), nn.Linear(in_features, num_actions)

    def forward(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch actions"]:
        """Return action values."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


class QNetwork(nn.Module):
    """Network of action values: ReLU layers, after ``ConvEncoder`` for images.

    Other observations of several dimensions are flattened. Bytes are scaled to [0, 1].

    Args:
        observation_shape: shape of one observation.
        num_actions: number of actions.
        hidden: sizes of the hidden layers.
        dueling: use a ``Dueling`` head instead of a linear last layer.

    Raises:
        ValueError: there is no hidden layer, or one without units.

    Example:
        >>> QNetwork((4,), num_actions=2)(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
        >>> QNetwork((10, 10, 4), num_actions=6, hidden=[128])(torch.zeros(5, 10, 10, 4, dtype=torch.bool)).shape
        torch.Size([5, 6])
    """

    def __init__(
        self,
        observation_shape: Sequence[int],
        num_actions: int,
        hidden: Sequence[int] = (64, 64),
        dueling: bool = False,
    ):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(
                "a network of action values needs at least one hidden layer, and at least 1 unit in each; "
                f"got hidden={list(hidden)}"
            )
        self.reads_images, self.dims = is_image(observation_shape), len(observation_shape)
        front = [ConvEncoder(observation_shape)] if self.reads_images else []
        layers = mlp_layers(front[0].features if front else math.prod(observation_shape), hidden, nn.ReLU)
        last = Dueling(hidden[-1], num_actions) if dueling else nn.Linear(hidden[-1], num_actions)
        self.layers = nn.Sequential(*front, *layers, last)

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch actions"]:
        """Return action values."""
        if not self.reads_images:
            x = flatten_observation(observation, self.dims)
            observation = x / 255 if x.dtype == torch.uint8 else x.float()
        values: Tensor = self.layers(observation)
        return values
