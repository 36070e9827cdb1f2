from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor
from torch.distributions import Distribution

Program = Callable[..., Any]
"""A function of a ``Graph`` and other arguments; see ``trace``."""


class Graph(Protocol):
    """First argument of a program: declares its stochastic nodes and its costs, by name.

    Example:
        >>> import torch
        >>> from zoo.gradients import Graph, expected_cost
        >>> def program(graph: Graph, theta: Tensor) -> None:
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", (x - 0.45) ** 2)
        >>> expected_cost(program, torch.tensor(0.0))
        tensor(0.2525)
    """

    def sample(self, name: str, distribution: Distribution) -> Tensor:
        """Sample a random variable; all its elements together are one node."""
        ...

    def cost(self, name: str, value: Tensor | float) -> None:
        """Add a cost to the objective, which is minimized."""
        ...
