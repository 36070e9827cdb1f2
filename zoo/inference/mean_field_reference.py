import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.poutine.util import site_is_subsample
from torch import nn
from torch.distributions import Distribution

from zoo.inference.elbo._sites import nesting
from zoo.inference.elbo._tracing import record
from zoo.inference.programs.factors import BernoulliFactor, Factor
from zoo.inference.programs.program import Program

STEPS, PARTICLES = 3000, 32  # of the pathwise run, and of each step


def mean_field_optimum(program: Program, data: Sequence[Any]) -> dict[str, Distribution]:
    """Find the distributions of a guide's family that are closest to the posterior in KL(q ‖ p), by site.

    In closed form where the program knows one, else by a long run with reparametrised gradients.

    Args:
        program: made of continuous factors.
        data: arguments of its model.

    Raises:
        ValueError: the program says no optimum, and its guide has no pathwise version.

    Example:
        >>> from zoo.inference.programs import PROGRAMS
        >>> coin = PROGRAMS["beta_bernoulli"]
        >>> mean_field_optimum(coin, coin.load(None))["fairness"].mean
        tensor(0.5333, dtype=torch.float64)
    """
    if program.optimum is not None:
        return dict(program.optimum(*data))
    fitted = pathwise_optimum(program.model, program.guide(*data), data)
    return distributions(fitted, data)


def distributions(guide: Callable[..., object], data: Sequence[Any]) -> dict[str, Distribution]:
    """Distribution of each site of a mean-field guide; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), torch.no_grad():
        trace = poutine.trace(guide).get_trace(*data)
        sites = ((name, trace.nodes[name]) for name in trace.stochastic_nodes)
        return {name: cast(Distribution, site["fn"]) for name, site in sites if not site_is_subsample(site)}


def distance_from(optimum: Mapping[str, Distribution], found: Mapping[str, Distribution]) -> dict[str, float]:
    """Compare the moments of each element of each site.

    Returns:
        ``optimum_mean_gap``, the largest distance of a mean in the optimum's standard deviations, and the smallest and
        largest ratio of a standard deviation to the optimum's, ``optimum_sd_ratio_low`` and
        ``optimum_sd_ratio_high``.

    Raises:
        ValueError: the sites are others.

    Example:
        >>> one, other = (torch.distributions.Normal(mean, 2.0) for mean in (0.0, 1.0))
        >>> distance_from({"x": one}, {"x": other})
        {'optimum_mean_gap': 0.5, 'optimum_sd_ratio_low': 1.0, 'optimum_sd_ratio_high': 1.0}
    """
    if optimum.keys() != found.keys():
        raise ValueError(f"the optimum is of the sites {', '.join(optimum)}, the guide of {', '.join(found)}")
    gaps = [((found[name].mean - best.mean) / best.stddev).abs().max() for name, best in optimum.items()]
    ratios = torch.cat([(found[name].stddev / best.stddev).reshape(-1) for name, best in optimum.items()])
    return {
        "optimum_mean_gap": torch.stack(gaps).max().item(),
        "optimum_sd_ratio_low": ratios.min().item(),
        "optimum_sd_ratio_high": ratios.max().item(),
    }


def refuse_without_optimum(name: str, program: Program, data: Sequence[Any]) -> None:
    """Refuse a program whose mean-field optimum can neither be had in closed form nor by a pathwise run.

    Raises:
        ValueError: it is such a one.
    """
    if program.optimum is not None:
        return
    try:
        pathwise(program.guide(*data))
    except ValueError as error:
        raise ValueError(
            f"the optimum of program={name} cannot be found: {error}; leave compare_with_optimum=true away"
        ) from error


def pathwise(guide: Callable[..., object]) -> nn.Module:
    """Copy a guide that is made of factors, with reparametrised samplers in place of scored ones.

    Raises:
        ValueError: a factor is discrete, or there are none.
    """
    copied = copy.deepcopy(guide) if isinstance(guide, nn.Module) else nn.Module()
    factors = [part for part in copied.modules() if isinstance(part, Factor)]
    if not factors or any(isinstance(factor, BernoulliFactor) for factor in factors):
        raise ValueError("only a guide made of continuous factors of zoo.inference.programs has a pathwise version")
    for factor in factors:
        factor.pathwise = True
    return copied


def pathwise_optimum(
    model: Callable[..., object],
    guide: nn.Module,
    data: Sequence[Any],
    steps: int = STEPS,
    particles: int = PARTICLES,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> nn.Module:
    """Fit the same family by reparametrised gradients: the reference where the optimum has no closed form.

    Adam, with the learning rate falling to 0 along a cosine. The guide that is given stays as it is, and so does the
    global random state.

    Args:
        model: Pyro model.
        guide: made of factors; the copy starts from its parameters.
        data: arguments of both.
        steps: of Adam.
        particles: samples a step, drawn together.
        learning_rate: at the start.
        seed: of all draws.

    Raises:
        ValueError: the guide has no pathwise version, or ``steps`` or ``particles`` is not positive.

    Returns:
        The fitted guide, still pathwise.
    """
    if min(steps, particles) < 1:
        raise ValueError(f"steps and particles must be at least 1, got {steps} and {particles}")
    fitted = pathwise(guide)
    optimiser = torch.optim.Adam([p for p in fitted.parameters() if p.requires_grad], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        plates = nesting(record(model, fitted, tuple(data), {}, {}))
        elbo = Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=plates)
        for _ in range(steps):
            optimiser.zero_grad()
            elbo.differentiable_loss(model, fitted, *data).backward()
            optimiser.step()
            schedule.step()
    return fitted
