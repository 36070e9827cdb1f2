"""Calls of ``has_rsample_(False)`` that have no effect."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions import Distribution

from zoo.gradients.graphs._distributions import nested_distributions
from zoo.gradients.graphs._provenance.patches import Function, Patch, Patches

ADVICE = "use NonReparameterized(distribution) of zoo.inference.elbo instead, which cannot be lost"


class RsampleFlagLostError(ValueError):
    """``has_rsample_(False)`` has no effect."""


@contextmanager
def record_flags() -> Iterator[list[Distribution]]:
    """Record the distributions on which ``has_rsample_(False)`` is called; explain the error if a call fails."""
    flagged: list[Distribution] = []
    _flags.enter(flagged)
    try:
        yield flagged
    except AttributeError as error:
        if "has_rsample" not in _raising_code(error).co_names:  # which sets a property without setter
            raise
        raise RsampleFlagLostError(
            f"has_rsample_(False) cannot be stored in this distribution ({error}); {ADVICE}"
        ) from error
    finally:
        _flags.leave()


def _record(flagged: list[Distribution], set_flag: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    distribution, value = (*args, *kwargs.values())
    if not value:
        flagged.append(distribution)
    return set_flag(distribution, value)


def _raising_code(error: Exception) -> CodeType:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code


_flags = Patches([Patch(TorchDistributionMixin, "has_rsample_", _record)])


def check_flags(flagged: Sequence[Distribution], sampled: Mapping[str, Distribution]) -> None:
    """Raise ``RsampleFlagLostError`` if a flagged distribution was not sampled, but a pathwise one of its class was."""
    parts = [(name, part) for name, distribution in sampled.items() for part in nested_distributions(distribution)]
    for distribution in flagged:
        if any(part is distribution for _, part in parts):
            continue
        for name, part in parts:
            if type(part) is type(distribution) and part.has_rsample:
                raise RsampleFlagLostError(
                    f"has_rsample_(False) of site {name!r} ({type(part).__name__}) was lost when a plate or expand() "
                    f"expanded the distribution, which is pathwise again; {ADVICE}"
                )
