from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from zoo.gradients.graphs._distributions import nested_distributions
from zoo.gradients.graphs._provenance.patches import Function, Patch, Patches

ADVICE = "use NonReparameterized(distribution) of zoo.inference.elbo instead, which is never lost"


class FlagLostError(ValueError):
    """``has_rsample_(False)`` is called in vain."""


class NonReparameterized(TorchDistribution):
    """A distribution without its pathwise gradient: ``BlackBoxELBO`` differentiates it by the score function.

    For a site of the guide whose value meets a step, as ``if``, ``torch.where`` or rounding, which no pathwise gradient
    sees. Unlike ``has_rsample_(False)``, which ``expand`` drops, and with it every plate that repeats the distribution,
    it survives ``expand``, ``to_event``, ``mask``, plates and ``TransformedDistribution``, and takes any distribution.

    Args:
        base_dist: a distribution.

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
        """Return the same, repeated."""
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
        """Draw a sample, without a gradient."""
        return self.base_dist.sample(torch.Size(sample_shape)).detach()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of a value, in nats."""
        return self.base_dist.log_prob(value)

    def cdf(self, value: Tensor) -> Tensor:
        """Cumulative distribution function."""
        return self.base_dist.cdf(value)

    def icdf(self, value: Tensor) -> Tensor:
        """Inverse of the cumulative distribution function."""
        return self.base_dist.icdf(value)

    def entropy(self) -> Tensor:
        """Entropy, in nats."""
        return self.base_dist.entropy()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """List all values."""
        return self.base_dist.enumerate_support(expand)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist!r})"


@contextmanager
def flags_noted() -> Iterator[list[Distribution]]:
    """Note the distributions on which ``has_rsample_(False)`` is called, and explain errors where it cannot be."""
    noted: list[Distribution] = []
    _flags.enter(noted)
    try:
        yield noted
    except AttributeError as error:
        if "has_rsample" not in str(error):
            raise
        raise FlagLostError(f"has_rsample_(False) cannot be kept by this distribution ({error}); {ADVICE}") from error
    finally:
        _flags.leave()


def _note(noted: list[Distribution], flag: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    distribution, value = (*args, *kwargs.values())
    if not value:
        noted.append(distribution)
    return flag(distribution, value)


_flags = Patches([Patch(TorchDistributionMixin, "has_rsample_", _note)])


def check_flags(noted: Sequence[Distribution], sampled: Mapping[str, Distribution]) -> None:
    """Raise an error if ``has_rsample_(False)`` was called in vain.

    Args:
        noted: distributions on which it was called.
        sampled: those of the sites, by name.

    Raises:
        FlagLostError: none of them was sampled, but a pathwise one of the same kind was.
    """
    parts = [(name, part) for name, distribution in sampled.items() for part in nested_distributions(distribution)]
    for flagged in noted:
        if any(part is flagged for _, part in parts):
            continue
        for name, part in parts:
            if type(part) is type(flagged) and part.has_rsample:
                raise FlagLostError(
                    f"has_rsample_(False) of site {name!r} ({type(part).__name__}) was lost where a plate or expand "
                    f"repeated the distribution, which is pathwise again; {ADVICE}"
                )
