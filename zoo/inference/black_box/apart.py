"""Whether a program keeps particles apart that run at once."""

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count as count_from
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor, nn

from zoo.gradients.graphs.provenance import listed
from zoo.gradients.moments import keep_buffers
from zoo.inference.black_box.influence import NO_PLATES
from zoo.inference.black_box.recording import Program, Subsamples, record, record_at_once
from zoo.inference.black_box.sentences import steered_together
from zoo.inference.black_box.signals import sum_outside
from zoo.inference.black_box.sites import PARTICLES, Run, Site, nesting

TOLERANCE = 1e-4  # between log-probabilities of one particle's site, alone and among others, per nat of all its terms
GRAVE = 0.01  # share of a site's terms; what differs by less may be rounding, and is warned of
REPETITIONS = 16  # of a run that is to show whether a program throws coins of its own
FEWEST = 8  # particles in a trial: values of bits that are mixed seldom look as if they were not
FAILURES = (RuntimeError, IndexError, ValueError, TypeError, AttributeError)
"""What comes of shapes that do not fit, and of distributions that cannot be expanded."""

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


@torch.no_grad()
def check_apart(max_plate_nesting: int, both: Both, drawn: Subsamples, particles: int) -> None:
    """Raise an error if model and guide do not say of each of many particles what they say of it alone.

    It is tried with another number of particles than any size in the programs, so that nothing is taken for particles
    because it happens to be as many. What is random beside the sample statements cannot be compared, and passes. Of a
    small difference there is a warning.

    Args:
        max_plate_nesting: dimensions to the left of which the particles are to stand.
        both: programs.
        drawn: subsamples to be used.
        particles: how many are asked for, and tried where a program is written for that number alone.

    Raises:
        ValueError: they do not. Whatever one particle alone raises is left as it is.
    """
    with without_trace(both):
        alone = record(*both, drawn)
        if alone.steered_by:
            raise ValueError(steered_together(f"the values of {listed(alone.steered_by)}"))
        if (needed := nesting(alone)) > max_plate_nesting:
            raise ValueError(
                f"the batches of model and guide take {needed} dimensions, and max_plate_nesting={max_plate_nesting} "
                f"(given, or found in the first run) leaves no room for the particles to the left of them; set it to "
                f"{needed}"
            )
        wrong = tried(max_plate_nesting, alone, both, drawn, particles)
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


def tried(nesting: int, alone: Run, both: Both, drawn: Subsamples, particles: int) -> Mixed | None:
    """Run some particles at once, and compare them with single ones.

    Raises:
        ValueError: they cannot run at once.
    """
    failed: Exception | None = None
    for number in (unlike_any_size(alone), particles):
        try:
            return mixed(record_at_once(number, nesting + 1, *both, drawn), alone, number, both, drawn)
        except FAILURES as error:
            failed = failed or error
    raise ValueError(not_apart(f"at once they fail ({failed})")) from failed


@contextmanager
def without_trace(both: Both) -> Iterator[None]:
    """Give random generators and buffers back as they were: a resumed run looks again, and is to go on as before."""
    state = get_rng_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), keep_buffers(modules_of(*both[:2])):
            yield
    finally:
        set_rng_state(state)


def code_of(program: Program) -> object:
    """Find what tells one program from another, also where a new function is made of the same code in each step."""
    function = inspect.unwrap(getattr(program, "func", program))
    return getattr(getattr(function, "__func__", function), "__code__", type(function))


def modules_of(*programs: Program) -> list[nn.Module]:
    """Find the modules that programs are, are methods of, or refer to by name."""
    found: list[Any] = []
    for program in programs:
        function = inspect.unwrap(getattr(program, "func", program))
        found += [function, getattr(function, "__self__", None)]
        if inspect.isfunction(function):
            names = inspect.getclosurevars(function)
            found += [*names.nonlocals.values(), *names.globals.values()]
    return list(dict.fromkeys(each for each in found if isinstance(each, nn.Module)))


def unlike_any_size(run: Run) -> int:
    """Find a number of particles that is no size of a value or a batch."""
    sites = [*run.guide.values(), *run.model.values()]
    sizes = {size for site in sites for x in (site.value, site.density.log_prob) for size in x.shape}
    return next(number for number in count_from(FEWEST) if number not in sizes)


def is_determined(alone: Run, both: Both, drawn: Subsamples) -> bool:
    """Tell whether nothing is random in a program but the values of its guide, as far as some runs show."""
    values = {name: site.value for name, site in alone.guide.items()}
    one, *others = (record(*both, drawn, values) for _ in range(REPETITIONS))
    return not any(mixed for other in others for mixed in differences(one, other))


def not_apart(why: str) -> str:
    """Say that particles cannot be vectorised, and what to do."""
    return (
        f"model and guide run for one particle, but do not keep many apart: {why}. Count dimensions from the right and "
        "keep them (sum(-1, keepdim=True), not sum()), and declare batches by plates or to_event; or set "
        "vectorize_particles=False"
    )
