import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from zoo.control.networks import Convolution, flat_numbers, hidden_layers, is_picture


class QTable(nn.Module):
    """Action values that share nothing: a number for each state and action, 0 at first.

    Args:
        states: number of states.
        actions: number of actions.
        dtype: of the numbers.

    Example:
        >>> QTable(states=16, actions=4)(torch.tensor([3, 5])).shape
        torch.Size([2, 4])
    """

    def __init__(self, states: int, actions: int, dtype: torch.dtype | None = None):
        super().__init__()
        self.values = nn.Parameter(torch.zeros(states, actions, dtype=dtype))

    def forward(self, state: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch actions"]:
        """Look the values up."""
        return self.values[state]


class Dueling(nn.Module):
    """Last layer that adds what a state is worth to how much better an action is than the average one.

    ``Q(s, a) = V(s) + A(s, a) - mean_a' A(s, a')``. Wang et al., "Dueling network architectures for deep reinforcement
    learning", 2016, equation 9.

    Args:
        features: size of what comes before.
        actions: number of actions.

    Example:
        >>> Dueling(features=64, actions=2)(torch.zeros(5, 64)).shape
        torch.Size([5, 2])
    """

    def __init__(self, features: int, actions: int):
        super().__init__()
        self.value, self.advantage = nn.Linear(features, 1), nn.Linear(features, actions)

    def forward(self, features: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch actions"]:
        """Add the two."""
        advantage = self.advantage(features)
        return self.value(features) + advantage - advantage.mean(-1, keepdim=True)


class QNetwork(nn.Module):
    """Action values from numbers or a picture: layers of ReLU units, behind a convolution for a picture.

    Observations of several axes that are no pictures are flattened. Bytes are brought into [0, 1].

    Args:
        shape: of an observation.
        actions: number of actions.
        hidden: units of each hidden layer.
        dueling: end with ``Dueling`` and not with a linear layer.

    Raises:
        ValueError: there is no hidden layer or one without units.

    Example:
        >>> QNetwork((4,), actions=2)(torch.zeros(5, 4)).shape
        torch.Size([5, 2])
        >>> QNetwork((10, 10, 4), actions=6, hidden=[128])(torch.zeros(5, 10, 10, 4, dtype=torch.bool)).shape
        torch.Size([5, 6])
    """

    def __init__(self, shape: Sequence[int], actions: int, hidden: Sequence[int] = (64, 64), dueling: bool = False):
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise ValueError(
                "a network of action values needs at least one hidden layer, and at least 1 unit in each; "
                f"got hidden={list(hidden)}"
            )
        self.reads_pictures, self.dims = is_picture(shape), len(shape)
        front = [Convolution(shape)] if self.reads_pictures else []
        layers = hidden_layers(front[0].features if front else math.prod(shape), hidden, nn.ReLU)
        last = Dueling(hidden[-1], actions) if dueling else nn.Linear(hidden[-1], actions)
        self.layers = nn.Sequential(*front, *layers, last)

    def forward(self, observation: Shaped[Tensor, "..."]) -> Float[Tensor, "*batch actions"]:
        """Give the values."""
        if not self.reads_pictures:
            numbers = flat_numbers(observation, self.dims)
            observation = numbers / 255 if numbers.dtype == torch.uint8 else numbers.float()
        values: Tensor = self.layers(observation)
        return values


def q_function(observation: int | Sequence[int], actions: int, hidden: Sequence[int], dueling: bool) -> nn.Module:
    """Make the Q-function that fits: a table for a number of states, else a network.

    Example:
        >>> q_function(16, actions=4, hidden=[64], dueling=False)
        QTable()
    """
    if isinstance(observation, int):
        return QTable(observation, actions)
    return QNetwork(observation, actions, hidden, dueling)
