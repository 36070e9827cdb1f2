from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint


class NonReparameterized(TorchDistribution):
    """A distribution without ``rsample``, so that ``BlackBoxELBO`` differentiates it by the score function.

    For sites of the guide in whose value the program is discontinuous (``if``, ``torch.where``, rounding): the pathwise
    gradient is biased there. Unlike ``has_rsample_(False)``, which is lost in ``expand`` and thus in every plate that
    expands the distribution, it persists in ``expand``, ``to_event``, ``mask``, plates and ``TransformedDistribution``.

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

    @constraints.dependent_property
    def support(self) -> Constraint | None:
        """Support of the distribution."""
        return self.base_dist.support

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Whether the support can be enumerated."""
        return bool(self.base_dist.has_enumerate_support)

    @property
    def mean(self) -> Tensor:
        """Mean of the distribution."""
        return self.base_dist.mean

    @property
    def mode(self) -> Tensor:
        """Mode of the distribution."""
        return self.base_dist.mode

    @property
    def variance(self) -> Tensor:
        """Variance of the distribution."""
        return self.base_dist.variance

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
