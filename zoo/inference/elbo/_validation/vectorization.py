"""Whether a program keeps particles apart that run at once."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count as count_from
from typing import Any

import torch
from pyro.util import get_rng_state, set_rng_state
from torch import nn

from zoo.gradients._steps import preserve_buffers
from zoo.inference.elbo._sites import Run, nesting
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import Program, check_not_steered, record, record_at_once
from zoo.inference.elbo._validation.comparison import Both, Mixed, is_determined, mixed
from zoo.inference.elbo.nonreparameterized import FlagLostError

GRAVE = 0.01  # share of a site's terms; what differs by less may be rounding, and is warned of
FEWEST = 8  # particles in a trial: values of bits that are mixed seldom look as if they were not
FAILURES = (RuntimeError, IndexError, ValueError, TypeError, AttributeError, AssertionError)
"""What comes of shapes that do not fit, and of distributions that cannot be expanded."""


@torch.no_grad()
def check_apart(max_plate_nesting: int, both: Both, drawn: Subsamples, particles: int) -> None:
    """Raise an error if model and guide do not say of each of many particles what they say of it alone.

    It is tried with another number of particles than any size in the programs, so that nothing is taken for particles
    because it happens to be as many. What is random beside the sample statements cannot be compared, and passes. Of a
    small difference there is a warning, and of batch normalisation.

    Args:
        max_plate_nesting: dimensions to the left of which the particles are to stand.
        both: programs.
        drawn: subsamples to be used.
        particles: how many are asked for, and tried where a program is written for that number alone.

    Raises:
        ValueError: they do not. Whatever one particle alone raises is left as it is.
    """
    with without_trace(both):
        alone = record(*both, drawn, watch_flags=True)
        check_not_steered(alone)
        if (needed := nesting(alone)) > max_plate_nesting:
            raise ValueError(
                f"the batches of model and guide take {needed} dimensions, and max_plate_nesting={max_plate_nesting} "
                f"(given, or found in the first run) leaves no room for the particles to the left of them; set it to "
                f"{needed}"
            )
        wrong = tried(max_plate_nesting, alone, both, drawn, particles)
        if wrong is None or not is_determined(alone, both, drawn):
            return
    if wrong.share > GRAVE and not normalises(*both[:2]):
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
            run = record_at_once(number, nesting + 1, *both, drawn, watch_flags=True)
            return mixed(run, alone, number, both, drawn)
        except FlagLostError:
            raise
        except FAILURES as error:
            failed = failed or error
    raise ValueError(not_apart(f"at once they fail ({type(failed).__name__}: {failed})")) from failed


@contextmanager
def without_trace(both: Both) -> Iterator[None]:
    """Give random generators and buffers back as they were: a resumed run looks again, and is to go on as before."""
    state = get_rng_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), preserve_buffers(modules_of(*both[:2])):
            yield
    finally:
        set_rng_state(state)


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


def normalises(*programs: Program) -> bool:
    """Tell whether batches are normalised in train mode: that mixes whatever is in them, and is meant to."""
    parts = [part for module in modules_of(*programs) for part in module.modules()]
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in parts)


def unlike_any_size(run: Run) -> int:
    """Find a number of particles that is no size of a value or a batch."""
    sites = [*run.guide.values(), *run.model.values()]
    sizes = {size for site in sites for x in (site.value, site.density.log_prob) for size in x.shape}
    return next(number for number in count_from(FEWEST) if number not in sizes)


def not_apart(why: str) -> str:
    """Say that particles cannot be vectorised, and what to do."""
    return (
        f"model and guide run for one particle, but do not keep many apart: {why}. Count dimensions from the right and "
        "keep them (sum(-1, keepdim=True), not sum()), and declare batches by plates or to_event; or set "
        "vectorize_particles=False"
    )
