"""Checks that vectorized particles are independent."""

import inspect
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from pyro.util import get_rng_state, set_rng_state
from torch import Tensor, nn

from zoo.gradients._steps import preserve_buffers
from zoo.inference.elbo._downstream_costs import sum_to_plates
from zoo.inference.elbo._sites import PARTICLES, Run, Site, plate_nesting
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import (
    ModelGuideCall,
    Program,
    check_control_flow,
    trace_model_and_guide,
    trace_vectorized,
)
from zoo.inference.elbo._validation.rsample_flags import RsampleFlagLostError

TOLERANCE = 1e-4  # of log-probabilities in two runs, relative to 1 + the sum of the absolute values of their terms
MAX_RELATIVE_ERROR = 0.01  # relative to the terms of the site; smaller differences may be rounding, and warn
NUM_TRIALS = 16  # runs that show whether a program is deterministic given the samples
MIN_TRIAL_PARTICLES = 8  # with fewer, dependence between binary particles is often invisible
VECTORIZATION_ERRORS = (RuntimeError, IndexError, ValueError, TypeError, AttributeError, AssertionError)
"""Errors raised for wrong shapes, and for distributions that cannot be expanded."""


@torch.no_grad()
def check_particles_independent(
    max_plate_nesting: int, call: ModelGuideCall, subsamples: Subsamples, num_particles: int
) -> None:
    """Raise an error if log-probabilities of a particle differ between a vectorized and a single run.

    The trial uses a number of particles that is not the size of any dimension, so that no other dimension can be
    mistaken for that of the particles; the given number is tried only if that run fails. Programs that are random
    beyond their sample statements cannot be compared, and pass. Small differences, and batch normalization, only raise
    a warning.
    Errors of the single run are raised unchanged.
    """
    with preserve_rng_and_buffers(call):
        single_run = trace_model_and_guide(call, subsamples, check_rsample_flags=True)
        check_control_flow(single_run)
        if (needed := plate_nesting(single_run)) > max_plate_nesting:
            raise ValueError(
                f"the batches of model and guide have {needed} dimensions, and max_plate_nesting={max_plate_nesting} "
                "(given, or found in the first run) leaves no dimension for the particles to the left of them; set it "
                f"to {needed}"
            )
        mismatch = _trial_run(max_plate_nesting, single_run, call, subsamples, num_particles)
        if mismatch is None or not is_deterministic(single_run, call, subsamples):
            return
    if mismatch.relative_error > MAX_RELATIVE_ERROR and not _has_train_mode_batchnorm(call.model, call.guide):
        raise ValueError(_vectorization_error(str(mismatch)))
    warnings.warn(
        "log-probabilities of a particle differ slightly between a vectorized and a single run: the particles are not "
        "independent, for example because of batch normalization in train mode, and the gradient is biased; or the "
        "rounding error is large. Set vectorize_particles=False to run each particle separately",
        stacklevel=2,
    )


def _trial_run(
    nesting: int, single_run: Run, call: ModelGuideCall, subsamples: Subsamples, num_particles: int
) -> "Mismatch | None":
    failure: Exception | None = None
    for number in (unambiguous_num_particles(single_run), num_particles):
        try:
            run = trace_vectorized(call, number, nesting, subsamples, check_rsample_flags=True)
            return find_mismatch(run, single_run, number, call, subsamples)
        except RsampleFlagLostError:
            raise
        except VECTORIZATION_ERRORS as error:
            failure = failure or error
    reason = f"the vectorized run fails ({type(failure).__name__}: {failure})"
    raise ValueError(_vectorization_error(reason)) from failure


@contextmanager
def preserve_rng_and_buffers(call: ModelGuideCall) -> Iterator[None]:
    """Restore random generators and buffers, so that a resumed run, which checks again, continues unchanged."""
    state = get_rng_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices=devices), preserve_buffers(_modules_of(call.model, call.guide)):
            yield
    finally:
        set_rng_state(state)


def _modules_of(*programs: Program) -> list[nn.Module]:
    """Return the modules that programs are, are methods of, or refer to by name."""
    found: list[Any] = []
    for program in programs:
        function = inspect.unwrap(getattr(program, "func", program))
        found += [function, getattr(function, "__self__", None)]
        if inspect.isfunction(function):
            names = inspect.getclosurevars(function)
            found += [*names.nonlocals.values(), *names.globals.values()]
    return list(dict.fromkeys(each for each in found if isinstance(each, nn.Module)))


def _has_train_mode_batchnorm(*programs: Program) -> bool:
    parts = [part for module in _modules_of(*programs) for part in module.modules()]
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) and part.training for part in parts)


def unambiguous_num_particles(run: Run) -> int:
    """Return a number of particles that is not the size of a dimension of any value or batch."""
    sites = [*run.guide.values(), *run.model.values()]
    sizes = {size for site in sites for x in (site.value, site.density.log_prob) for size in x.shape}
    return next(number for number in count(MIN_TRIAL_PARTICLES) if number not in sizes)


def _vectorization_error(reason: str) -> str:
    return (
        f"vectorize_particles=True requires model and guide to be independent across particles, but {reason}. Index "
        "dimensions from the right with keepdim=True (sum(-1, keepdim=True), not sum()), declare batch dimensions with "
        "pyro.plate or to_event, or set vectorize_particles=False"
    )


class Mismatch(NamedTuple):
    """Log-probability of a particle's site that differs between a vectorized and a single run."""

    term: str
    """Name of the log-probability."""
    vectorized: float
    single: float
    relative_error: float
    num_particles: int

    def __str__(self) -> str:
        return (
            f"{self.term} is {self.vectorized:.6g} with {self.num_particles} particles and {self.single:.6g} with one"
        )


def _sum_log_prob(site: Site) -> tuple[Float64[Tensor, " particles"], Float64[Tensor, " particles"]]:
    """Return the log-probability of a site for each particle, in nats, and the sum of the absolute values of its terms.

    The rounding error is proportional to the sum of the absolute values.
    """
    log_prob = site.density.log_prob.cpu().double()  # not every device supports double precision
    particles = frozenset(plate for plate in site.plates if plate.name == PARTICLES)
    total, scale = (sum_to_plates(x, particles).reshape(-1) for x in (log_prob, log_prob.abs()))
    return total, scale


def sum_log_probs(sites: Mapping[str, Site], num_particles: int) -> Float64[Tensor, " particles"]:
    """Return the sum of the log-probabilities of sites for each particle."""
    total = torch.zeros(num_particles, dtype=torch.float64)
    for site in sites.values():
        total = total + _sum_log_prob(site)[0]
    return total


def find_mismatch(
    run: Run, single_run: Run, num_particles: int, call: ModelGuideCall, subsamples: Subsamples
) -> Mismatch | None:
    """Return the largest difference between a vectorized run and single runs of its first and last particle."""
    found: list[Mismatch] = []
    for k in {0, num_particles - 1}:
        values = {
            name: site.value.reshape(num_particles, *single_run.guide[name].value.shape)[k]
            for name, site in run.guide.items()
        }
        found += mismatches(run, trace_model_and_guide(call, subsamples, values), k, num_particles)
    return max(found, key=lambda mismatch: mismatch.relative_error, default=None)


def mismatches(run: Run, single_run: Run, k: int = 0, num_particles: int = 1) -> Iterator[Mismatch]:
    """Yield the log-probabilities of one particle that differ from those of another run."""
    for what, sites, others in (("log p", run.model, single_run.model), ("log q", run.guide, single_run.guide)):
        for name in sites:
            (values, scales), (other_values, _) = _sum_log_prob(sites[name]), _sum_log_prob(others[name])
            value, other, scale = values[k].item(), other_values[0].item(), scales[k].item()
            if not is_close(value, other, scale):
                error = abs(value - other) / (1 + scale)
                error = math.inf if math.isnan(error) else error
                yield Mismatch(f"{what} of site {name!r}", value, other, error, num_particles)


def is_close(x: float, y: float, scale: float) -> bool:
    """Return whether two sums, of terms whose absolute values sum to ``scale``, are equal up to rounding."""
    if math.isfinite(x) and math.isfinite(y):
        return abs(x - y) <= TOLERANCE * (1 + scale)
    return x == y or (math.isnan(x) and math.isnan(y))


def is_deterministic(single_run: Run, call: ModelGuideCall, subsamples: Subsamples) -> bool:
    """Return whether a program is random only in the samples of the guide, judging by ``NUM_TRIALS`` runs."""
    values = {name: site.value for name, site in single_run.guide.items()}
    first, *others = (trace_model_and_guide(call, subsamples, values) for _ in range(NUM_TRIALS))
    return not any(mismatch for other in others for mismatch in mismatches(first, other))
