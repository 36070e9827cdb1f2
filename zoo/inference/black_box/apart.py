"""Whether a program keeps particles apart that run at once."""

import math
import warnings
from collections.abc import Mapping
from itertools import count as count_from
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from zoo.gradients.graphs.provenance import listed
from zoo.gradients.moments import keep_buffers
from zoo.inference.black_box.influence import NO_PLATES, Plates
from zoo.inference.black_box.recording import Program, Subsamples, record, record_at_once
from zoo.inference.black_box.sentences import steered_together
from zoo.inference.black_box.signals import sum_outside
from zoo.inference.black_box.sites import PARTICLES, Run, Site, nesting

TOLERANCE = 1e-4  # between log-densities of one particle, alone and among others, per nat of all terms together
GRAVE = 0.01  # share of all terms; what differs by less may be rounding, and is warned of
REPETITIONS = 16  # of a run that is to show whether a program throws coins of its own
FEWEST = 8  # particles in a trial: values of bits that are mixed seldom look as if they were not
FAILURES = (RuntimeError, IndexError, ValueError, TypeError, AttributeError)
"""What comes of shapes that do not fit, and of distributions that cannot be expanded."""

Both = tuple[Program, Program, tuple[Any, ...], dict[str, Any]]
"""Model, guide and the arguments of both."""


class LogDensities(NamedTuple):
    """Of each particle, in double precision, in nats, on the CPU."""

    p: Float64[Tensor, " particles"]
    q: Float64[Tensor, " particles"]
    size: Float64[Tensor, " particles"]
    """Sum of the absolute values of all terms: rounding grows with them."""


def log_densities(run: Run, particles: int) -> LogDensities:
    """Sum the log-probabilities of the sites of a model and of its guide, for each particle of a run."""
    p, size_of_p = summed(run.model, particles)
    q, size_of_q = summed(run.guide, particles)
    return LogDensities(p, q, size_of_p + size_of_q)


def summed(sites: Mapping[str, Site], particles: int) -> tuple[Tensor, Tensor]:
    """Sum the log-probabilities of sites, and their absolute values, for each particle."""
    total = size = torch.zeros(particles, dtype=torch.float64)
    for site in sites.values():
        log_prob = site.density.log_prob.cpu().double()  # there, as not every device has double precision
        total = total + sum_outside(log_prob, particles_of(site.plates)).reshape(-1)
        size = size + sum_outside(log_prob.abs(), particles_of(site.plates)).reshape(-1)
    return total, size


def particles_of(plates: Plates) -> Plates:
    """Find the plate of the particles among others; none where there is only one particle."""
    return frozenset(plate for plate in plates if plate.name == PARTICLES) or NO_PLATES


class Mixed(NamedTuple):
    """What a program says of a particle among others, and when it is alone."""

    what: str
    together: float
    alone: float
    share: float
    """Of the size of all terms by which the two differ."""

    def __str__(self) -> str:
        return f"{self.what} of a particle is {self.together:.6g} among others and {self.alone:.6g} alone"


def mixed(run: Run, alone: Run, particles: int, both: Both, drawn: Subsamples) -> Mixed | None:
    """Tell what a program says otherwise of the first or last particle when it is alone; None if nothing.

    Args:
        run: of all particles at once.
        alone: of one particle.
        particles: how many there are.
        both: programs.
        drawn: subsamples that the run saw.
    """
    found = log_densities(run, particles)
    for k in {0, particles - 1}:
        values = {name: x.value.reshape(particles, *alone.guide[name].value.shape)[k] for name, x in run.guide.items()}
        one, single = LogDensities(*(each[k : k + 1] for each in found)), alone_again(values, both, drawn)
        for what, together, apart in (("log p(x, z)", one.p, single.p), ("log q(z)", one.q, single.q)):
            if not close(together, apart, one.size):
                share = ((together - apart).abs() / (1 + one.size)).nan_to_num(nan=math.inf)
                return Mixed(what, together.item(), apart.item(), share.item())
    return None


def alone_again(values: Mapping[str, Tensor], both: Both, drawn: Subsamples) -> LogDensities:
    """Take the log-densities of one particle, given its values."""
    return log_densities(record(*both, drawn, values), 1)


def close(x: Tensor, y: Tensor, size: Tensor) -> bool:
    """Tell whether two log-densities of such a size are the same but for rounding."""
    return bool(torch.isclose(x, y, rtol=0, atol=TOLERANCE * (1 + size.nan_to_num().item()), equal_nan=True))


@torch.no_grad()
def check_apart(max_plate_nesting: int, both: Both, drawn: Subsamples) -> None:
    """Raise an error if model and guide do not say of each of many particles what they say of it alone.

    It is tried with another number of particles than any size in the programs, so that nothing is taken for particles
    because it happens to be as many. What is random beside the sample statements cannot be compared, and passes. Of a
    small difference there is a warning.

    Args:
        max_plate_nesting: dimensions to the left of which the particles are to stand.
        both: programs.
        drawn: subsamples to be used.

    Raises:
        ValueError: they do not. Whatever one particle alone raises is left as it is.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    # No trace is left: a resumed run, which looks again, is to go on as the one that did not.
    with torch.random.fork_rng(devices=devices), keep_buffers(modules_of(*both[:2])):
        alone = record(*both, drawn)
        if alone.steered_by:
            raise ValueError(steered_together(f"the values of {listed(alone.steered_by)}"))
        if (needed := nesting(alone)) > max_plate_nesting:
            raise ValueError(
                f"the batches of model and guide take {needed} dimensions, and max_plate_nesting={max_plate_nesting} "
                f"leaves no room for the particles to the left of them; set it to {needed}"
            )
        particles = unlike_any_size(alone)
        try:
            run = record_at_once(particles, max_plate_nesting + 1, *both, drawn)
            wrong = mixed(run, alone, particles, both, drawn)
        except FAILURES as error:
            raise ValueError(not_apart(f"they fail for {particles}: {error}")) from error
        if wrong is None or not is_determined(alone, both, drawn):
            return
    if wrong.share > GRAVE:
        raise ValueError(not_apart(str(wrong)))
    warnings.warn(
        "what model and guide say of one particle changes a little if there are others: they mix particles, as batch "
        "normalisation does in train mode, and the gradient is biased; or rounding is as coarse as that. "
        "vectorize_particles=False keeps particles apart",
        stacklevel=2,
    )


def modules_of(*programs: Program) -> list[nn.Module]:
    """Find the modules that programs are, or are methods of."""
    owners = [getattr(program, "__self__", program) for program in programs]
    return [owner for owner in owners if isinstance(owner, nn.Module)]


def unlike_any_size(run: Run) -> int:
    """Find a number of particles that is no size of a value or a batch."""
    sites = [*run.guide.values(), *run.model.values()]
    sizes = {size for site in sites for x in (site.value, site.density.log_prob) for size in x.shape}
    return next(number for number in count_from(FEWEST) if number not in sizes)


def is_determined(alone: Run, both: Both, drawn: Subsamples) -> bool:
    """Tell whether nothing is random in a program but the values of its guide, as far as some runs show."""
    values = {name: site.value for name, site in alone.guide.items()}
    one, *others = (alone_again(values, both, drawn) for _ in range(REPETITIONS))
    return all(close(one.p, other.p, one.size) and close(one.q, other.q, one.size) for other in others)


def not_apart(why: str) -> str:
    """Say that particles cannot be vectorised, and what to do."""
    return (
        f"model and guide run for one particle, but do not keep many apart: {why}. Count dimensions from the right and "
        "keep them (sum(-1, keepdim=True), not sum()), and declare batches by plates or to_event; or set "
        "vectorize_particles=False"
    )
