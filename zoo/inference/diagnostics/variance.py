import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float64
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor, nn

from zoo.constraints import COUNT, POSITIVE, Constraint, check_constraints, is_integer
from zoo.gradients.spread import Spread
from zoo.inference.diagnostics.candidates import (
    BASELINES,
    Call,
    check_particles,
    gradient,
    has_networks,
    usable,
    usual_estimators,
)
from zoo.inference.diagnostics.posterior_samples import arguments
from zoo.inference.diagnostics.variance_table import ALL, VarianceReport, VarianceRow
from zoo.stats import jackknife_interval

Program = Callable[..., Any]
BATCHES = 10  # of draws, for the intervals
CLEAR = 2.0  # standard errors: a mean gradient nearer to 0 is taken for noise
CONSTRAINTS = {
    "draws": Constraint(f"a whole number of {2 * BATCHES} or more", lambda x: is_integer(x) and x >= 2 * BATCHES),
    "warm_up": Constraint("a whole number of 0 or more", lambda x: is_integer(x) and x >= 0),
    "target": POSITIVE,
    "particles": COUNT,
}


def variance_report(
    model: Program,
    guide: Program,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    draws: int = 200,
    particles: int = 4,
    estimators: Mapping[str, ELBO] | None = None,
    vectorize_particles: bool = False,
    target: float = 1.0,
    warm_up: int = 20,
) -> VarianceReport:
    """Compare estimators of the ELBO's gradient: how much it varies, by each, for every parameter of the guide.

    All estimators see the same particles, so that their ratios are known better than the variances. Intervals are from
    batches of estimates. All estimators must be unbiased: the least noisy one tells where the gradient's mean lies. At
    an optimum that is 0, and no number of particles makes it stand out.

    Variance falls as one over the number of particles, and that is how the number is suggested; leave-one-out baselines
    gain a little more.

    Args:
        model: Pyro model.
        guide: of it, at the parameters to be judged. No ``.grad`` is touched.
        args: of both.
        kwargs: of both.
        draws: estimates by each estimator.
        particles: of each estimate, by the usual estimators.
        estimators: by name, all with ``particles`` particles; None for ``usual_estimators``, with the networks of the
            guide's sites if they name some. What they average is learned meanwhile; networks are judged as they are.
        vectorize_particles: by the usual estimators.
        target: signal-to-noise ratio to suggest a number of particles for.
        warm_up: estimates before, from which baselines learn, and which do not count.

    Raises:
        ValueError: the numbers make no sense, an estimator has another number of particles, the guide has no
            parameters, or the first estimator cannot be used.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     with pyro.plate("data", 3):
        ...         pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=torch.ones(3))
        >>> def guide():
        ...     logits = pyro.param("logits", torch.zeros(3))
        ...     with pyro.plate("data", 3):
        ...         pyro.sample("z", dist.Bernoulli(logits=logits))
        >>> report = variance_report(model, guide, draws=20, particles=2, warm_up=5)
        >>> report.row("Rao-Blackwell", "logits").reduction.low > 1
        True
    """
    check_constraints({"draws": draws, "warm_up": warm_up, "target": target, "particles": particles}, CONSTRAINTS)
    call = (model, guide, *arguments(args)), dict(kwargs or {})
    seeds = torch.randint(2**62, (warm_up + draws,)).tolist()
    with torch.random.fork_rng(devices=[]):
        parameters = guide_parameters(guide, args, kwargs or {})
        if estimators is None:
            baselines = (*BASELINES, "learned") if has_networks(guide, args, kwargs or {}) else BASELINES
            estimators = usual_estimators(particles, vectorize_particles, baselines)
        check_particles(estimators, particles)
        rivals, left_out = usable(estimators, call, list(parameters.values()), seeds[0])
        for seed in seeds[:warm_up]:
            for elbo in rivals.values():
                gradient(elbo, call, list(parameters.values()), seed)
        edges = [warm_up + draws * batch // BATCHES for batch in range(BATCHES + 1)]
        batches = [
            {name: spread(elbo, call, list(parameters.values()), seeds[start:end]) for name, elbo in rivals.items()}
            for start, end in pairwise(edges)
        ]
    return VarianceReport(rows_of(batches, parameters, draws, particles, target), particles, draws, target, left_out)


def guide_parameters(guide: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Find the unconstrained parameters of a guide, by name: a module's own, and those of Pyro's store that it uses.

    Raises:
        ValueError: there are none that need a gradient.
    """
    with torch.no_grad(), poutine.block(), poutine.trace(param_only=True) as captured:
        guide(*args, **kwargs)
    values: dict[str, Any] = {name: node["value"] for name, node in captured.trace.nodes.items()}
    own = dict(guide.named_parameters()) if isinstance(guide, nn.Module) else {}
    # The store may hold another module's parameters by the same names.
    stored = {name: x.unconstrained() for name, x in values.items() if not {*names_in_module(name)} & set(own)}
    found = {name: x for name, x in (own | stored).items() if x.requires_grad}
    if not found:
        raise ValueError("the guide has no parameters that need a gradient, so there is no gradient to judge")
    return found


def names_in_module(name: str) -> tuple[str, str]:
    """Names that a module may have for a parameter of Pyro's store.

    Example:
        >>> names_in_module("factor$$$scale")
        ('factor.scale', 'factor.scale_unconstrained')
    """
    name = name.replace("$$$", ".")
    return name, f"{name}_unconstrained"


def spread(elbo: ELBO, call: Call, parameters: Sequence[Tensor], seeds: Sequence[int]) -> Spread:
    """Take in one estimate of the gradient for each seed."""
    found = Spread()
    for seed in seeds:
        estimate = gradient(elbo, call, parameters, seed)
        found.add(estimate, estimate.new_ones(1))
    return found


def rows_of(
    batches: Sequence[Mapping[str, Spread]], parameters: Mapping[str, Tensor], draws: int, particles: int, target: float
) -> tuple[VarianceRow, ...]:
    """Sum up the batches, for each parameter and for all, by each estimator."""
    sizes = [parameter.numel() for parameter in parameters.values()]
    variance = {name: torch.stack([variances(batch[name], sizes) for batch in batches]) for name in batches[0]}
    averages = {name: average_gradient([batch[name] for batch in batches]) for name in variance}
    first = next(iter(variance.values()))
    found = []
    for i, parameter in enumerate((*parameters, ALL)):
        least = min(variance, key=lambda name: variance[name][:, i].mean().item())
        signal = signal_of(per_parameter(averages[least].square(), sizes)[i], variance[least][:, i].mean() / draws)
        found += [
            row(parameter, name, each[:, i], first[:, i], signal, particles, target) for name, each in variance.items()
        ]
    return tuple(found)


def average_gradient(batches: Sequence[Spread]) -> Float64[Tensor, " size"]:
    """Mean over all estimates."""
    draws = sum(batch.weight for batch in batches)
    return torch.stack([batch.mean * (batch.weight / draws) for batch in batches]).sum(0)


def signal_of(square: Float64[Tensor, ""], error: Float64[Tensor, ""]) -> float:
    """Norm of the gradient's mean, given the squares of its estimate and of that one's standard error.

    What the error adds to the square is taken off. NaN if the estimate may be but error.
    """
    return (square - error).sqrt().item() if square > CLEAR**2 * error else math.nan


def row(
    parameter: str,
    estimator: str,
    variance: Float64[Tensor, " batches"],
    first: Float64[Tensor, " batches"],
    signal: float,
    particles: int,
    target: float,
) -> VarianceRow:
    """Judge one estimator of one parameter's gradient."""
    found = jackknife_interval(variance)
    ratio = signal / math.sqrt(found.value) if found.value > 0 else signal * math.inf
    needed = None if math.isnan(signal) else max(1, math.ceil(particles * (target / ratio) ** 2))
    return VarianceRow(parameter, estimator, found, jackknife_interval(first, variance), ratio, needed)


def variances(found: Spread, sizes: Sequence[int]) -> Float64[Tensor, " parameters"]:
    """Variance of each parameter's gradient, and of all."""
    return per_parameter(found.squares / (found.weight - 1), sizes)


def per_parameter(x: Float64[Tensor, " size"], sizes: Sequence[int]) -> Float64[Tensor, " parameters"]:
    """Sum over the elements of each parameter, and over all."""
    sums = torch.stack([part.sum() for part in x.split(list(sizes))])
    return torch.cat([sums, sums.sum(0, keepdim=True)])
