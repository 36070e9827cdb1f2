import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pyro
import torch
from pyro import poutine
from pyro.infer import Predictive, Trace_ELBO
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn
from torch.distributions import Distribution

from zoo.inference.elbo._sites import plate_nesting
from zoo.inference.elbo._tracing import ModelGuideCall, trace_model_and_guide
from zoo.inference.programs._factors import BernoulliFactor, Factor
from zoo.inference.programs._program import Program

NUM_STEPS, NUM_PARTICLES = 3000, 32


def mean_field_optimum(program: Program, data: Sequence[Any]) -> dict[str, Distribution]:
    """Return the distributions of a guide's family that minimize KL(q ‖ p), by site.

    In closed form where the program defines it, else by a long run with reparameterized gradients.
    """
    if program.optimum is not None:
        return dict(program.optimum(*data))
    fitted = fit_pathwise_guide(program.model, program.guide(*data), data)
    return guide_distributions(fitted, data)


def guide_distributions(guide: Callable[..., object], data: Sequence[Any]) -> dict[str, Distribution]:
    """Return the distribution of each site of a mean-field guide; the global random state is not used."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), torch.no_grad():
        trace = poutine.trace(guide).get_trace(*data)
        sites = ((name, trace.nodes[name]) for name in trace.stochastic_nodes)
        return {name: cast(Distribution, site["fn"]) for name, site in sites if not site_is_subsample(site)}


def sample_guide(guide: Callable[..., object], data: Sequence[Any], num_samples: int, seed: int) -> dict[str, Tensor]:
    """Return samples of all sites of a guide, ``(num_samples, *shape)``; the global random state is not used."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), torch.no_grad():
        torch.manual_seed(seed)
        return Predictive(guide, num_samples=num_samples, parallel=True)(*data)


def compare_to_optimum(optimum: Mapping[str, Distribution], found: Mapping[str, Distribution]) -> dict[str, float]:
    """Compare the moments of each element of each site."""
    if optimum.keys() != found.keys():
        raise ValueError(f"the optimum has the sites {', '.join(optimum)}, the guide {', '.join(found)}")
    gaps = [((found[name].mean - best.mean) / best.stddev).abs().max() for name, best in optimum.items()]
    ratios = torch.cat([(found[name].stddev / best.stddev).reshape(-1) for name, best in optimum.items()])
    return {
        "optimum_mean_gap": torch.stack(gaps).max().item(),
        "optimum_sd_ratio_low": ratios.min().item(),
        "optimum_sd_ratio_high": ratios.max().item(),
    }


def check_optimum_available(name: str, program: Program, data: Sequence[Any]) -> None:
    """Raise ``ValueError`` if the mean-field optimum has no closed form and the guide no pathwise version."""
    if program.optimum is not None:
        return
    try:
        pathwise_guide(program.guide(*data))
    except ValueError as error:
        raise ValueError(
            f"the optimum of program={name} cannot be computed: {error}; remove compare_with_optimum=true"
        ) from error


def pathwise_guide(guide: Callable[..., object]) -> nn.Module:
    """Return a copy of a guide of factors that uses reparameterized samplers."""
    copied = copy.deepcopy(guide) if isinstance(guide, nn.Module) else nn.Module()
    factors = [part for part in copied.modules() if isinstance(part, Factor)]
    if not factors or any(isinstance(factor, BernoulliFactor) for factor in factors):
        raise ValueError("only a guide of continuous factors of zoo.inference.programs has a pathwise version")
    for factor in factors:
        factor.pathwise = True
    return copied


def fit_pathwise_guide(
    model: Callable[..., object],
    guide: nn.Module,
    data: Sequence[Any],
    num_steps: int = NUM_STEPS,
    num_particles: int = NUM_PARTICLES,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> nn.Module:
    """Fit the same family with reparameterized gradients: the reference if the optimum has no closed form.

    Adam with cosine decay to 0. Neither the guide nor the global random state is changed.
    """
    if min(num_steps, num_particles) < 1:
        raise ValueError(f"num_steps and num_particles must be at least 1, got {num_steps} and {num_particles}")
    fitted = pathwise_guide(guide)
    optimizer = torch.optim.Adam([p for p in fitted.parameters() if p.requires_grad], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        plates = plate_nesting(trace_model_and_guide(ModelGuideCall(model, fitted, tuple(data)), {}))
        elbo = Trace_ELBO(num_particles=num_particles, vectorize_particles=True, max_plate_nesting=plates)
        for _ in range(num_steps):
            optimizer.zero_grad()
            elbo.differentiable_loss(model, fitted, *data).backward()
            optimizer.step()
            schedule.step()
    return fitted
