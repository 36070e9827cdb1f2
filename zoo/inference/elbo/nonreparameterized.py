from operator import attrgetter
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint


class NonReparameterized(TorchDistribution):
    """A distribution without ``rsample``, so that ``BlackBoxELBO`` differentiates it by the score function.

    Use it for a site of the guide if the program is discontinuous in its value (``if``, ``torch.where``, rounding),
    where the pathwise gradient is biased. ``has_rsample_(False)`` is lost when ``expand`` or a plate expands the
    distribution; this wrapper is kept by ``expand``, ``to_event``, ``mask``, plates and ``TransformedDistribution``.

    Args:
        base_dist: any distribution.

    Example:
        >>> import pyro.distributions as dist
        >>> NonReparameterized(dist.Gumbel(0.0, 1.0)).expand([3]).to_event(1).has_rsample
        False
    """

    arg_constraints: dict[str, Constraint] = {}  # noqa: RUF012
    has_rsample = False

    def __init__(self, base_dist: Distribution):
        self.base_dist = base_dist
        super().__init__(base_dist.batch_shape, base_dist.event_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "NonReparameterized":
        """Return the distribution expanded to a batch shape."""
        return NonReparameterized(self.base_dist.expand(torch.Size(batch_shape)))

    support = constraints.dependent_property(attrgetter("base_dist.support"))
    has_enumerate_support = property(attrgetter("base_dist.has_enumerate_support"))
    mean = property(attrgetter("base_dist.mean"))
    mode = property(attrgetter("base_dist.mode"))
    variance = property(attrgetter("base_dist.variance"))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Return a sample without gradient."""
        return self.base_dist.sample(torch.Size(sample_shape)).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of a value, in nats."""
        return self.base_dist.log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the cumulative distribution function."""
        return self.base_dist.cdf(value)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the inverse of the cumulative distribution function."""
        return self.base_dist.icdf(value)

    def entropy(self) -> Tensor:
        """Return the entropy, in nats."""
        return self.base_dist.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """Return all values."""
        return self.base_dist.enumerate_support(expand)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist!r})"
