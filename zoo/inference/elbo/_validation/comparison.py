"""What a program says of a particle among others, and when it is alone."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor

from zoo.inference.elbo._dependencies import NO_PLATES
from zoo.inference.elbo._downstream_costs import sum_outside
from zoo.inference.elbo._sites import PARTICLES, Run, Site
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import Program, record

TOLERANCE = 1e-4  # between log-probabilities of one particle's site, alone and among others, per nat of all its terms
REPETITIONS = 16  # of a run that is to show whether a program throws coins of its own

Both = tuple[Program, Program, tuple[Any, ...], dict[str, Any]]
"""Model, guide and the arguments of both."""


class Terms(NamedTuple):
    """Log-probability of a site, summed for each particle, in double precision, in nats, on the CPU."""

    sum: Float64[Tensor, " particles"]
    size: Float64[Tensor, " particles"]
    """Sum of the absolute values: rounding grows with them."""


def terms_of(site: Site) -> Terms:
    """Sum the log-probability of a site for each particle."""
    log_prob = site.density.log_prob.cpu().double()  # there, as not every device has double precision
    particles = frozenset(plate for plate in site.plates if plate.name == PARTICLES) or NO_PLATES
    return Terms(*(sum_outside(x, particles).reshape(-1) for x in (log_prob, log_prob.abs())))


def log_density(sites: Mapping[str, Site], particles: int) -> Float64[Tensor, " particles"]:
    """Sum the log-probabilities of sites, for each particle."""
    total = torch.zeros(particles, dtype=torch.float64)
    for site in sites.values():
        total = total + terms_of(site).sum
    return total


class Mixed(NamedTuple):
    """What a program says of a particle among others, and when it is alone."""

    what: str
    together: float
    alone: float
    share: float
    """Of the size of the terms by which the two differ."""

    def __str__(self) -> str:
        return f"{self.what} of a particle is {self.together:.6g} among others and {self.alone:.6g} alone"


def mixed(run: Run, alone: Run, particles: int, both: Both, drawn: Subsamples) -> Mixed | None:
    """Tell what a program says most otherwise of the first or last particle when it is alone; None if nothing.

    Args:
        run: of all particles at once.
        alone: of one particle.
        particles: how many there are.
        both: programs.
        drawn: subsamples that the run saw.
    """
    found = []
    for k in {0, particles - 1}:
        values = {name: x.value.reshape(particles, *alone.guide[name].value.shape)[k] for name, x in run.guide.items()}
        found += list(differences(run, record(*both, drawn, values), k))
    return max(found, key=lambda each: each.share, default=None)


def differences(run: Run, single: Run, k: int = 0) -> Iterator[Mixed]:
    """Compare the log-probability of each site of one particle with what it is in another run."""
    for what, ours, theirs in (("log p", run.model, single.model), ("log q", run.guide, single.guide)):
        for name in ours:
            one, other = terms_of(ours[name]), terms_of(theirs[name])
            together, apart, size = one.sum[k].item(), other.sum[0].item(), one.size[k].item()
            if not close(together, apart, size):
                share = abs(together - apart) / (1 + size)
                yield Mixed(f"{what} of site {name!r}", together, apart, math.inf if math.isnan(share) else share)


def close(x: float, y: float, size: float) -> bool:
    """Tell whether two log-probabilities of such a size are the same but for rounding."""
    if math.isfinite(x) and math.isfinite(y):
        return abs(x - y) <= TOLERANCE * (1 + size)
    return x == y or (math.isnan(x) and math.isnan(y))


def is_determined(alone: Run, both: Both, drawn: Subsamples) -> bool:
    """Tell whether nothing is random in a program but the values of its guide, as far as some runs show."""
    values = {name: site.value for name, site in alone.guide.items()}
    one, *others = (record(*both, drawn, values) for _ in range(REPETITIONS))
    return not any(each for other in others for each in differences(one, other))
