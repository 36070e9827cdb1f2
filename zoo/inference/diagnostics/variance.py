import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor, nn

from zoo._constraints import COUNT, POSITIVE, Constraint, check_constraints, is_integer
from zoo._stats import Estimate, jackknife_interval
from zoo.gradients import RunningMoments, per_sample_gradients
from zoo.inference.diagnostics._args import as_args
from zoo.inference.diagnostics.candidates import BASELINES, default_estimators

Program = Callable[..., Any]
Gradient = Callable[[ELBO, int], Tensor]
"""Returns an estimate of the gradient of the negative ELBO, ``(1, size)``, for an estimator and a random seed."""

ALL = "all parameters"
"""Name of the rows of a variance report for all parameters together."""
NUM_BATCHES = 10  # of gradient estimates, for the jackknife
MIN_Z = 2.0  # standard errors from 0, below which a mean gradient is considered noise
CONSTRAINTS = {
    "num_samples": Constraint(
        f"a whole number of {2 * NUM_BATCHES} or more", lambda x: is_integer(x) and x >= 2 * NUM_BATCHES
    ),
    "num_warmup": Constraint("a whole number of 0 or more", lambda x: is_integer(x) and x >= 0),
    "target_snr": POSITIVE,
    "num_particles": COUNT,
}


class VarianceRow(NamedTuple):
    """Gradient variance of one parameter with one estimator; see ``variance_report``.

    Example:
        >>> one = Estimate(1.0, 0.5, 2.0)
        >>> VarianceRow(ALL, "basic", one, one, signal_to_noise=0.5, num_particles_needed=16).estimator
        'basic'
    """

    parameter: str  # or ``ALL``
    estimator: str
    variance: Estimate
    """``Σ Var[g_i]`` over its elements."""
    reduction: Estimate
    """Variance of the first estimator divided by this one."""
    signal_to_noise: float
    """``‖E[g]‖ / sqrt(Σ Var[g_i])``, with the mean of the estimator with the least variance; NaN if not significant."""
    num_particles_needed: int | None
    """For the target signal-to-noise ratio; None if the mean gradient is not significant, as at an optimum."""


@dataclass(frozen=True)
class VarianceReport:
    """Result of ``variance_report``; ``print`` prints it as a table.

    Example:
        >>> row = VarianceRow(ALL, "basic", Estimate(1.0, 0.5, 2.0), Estimate(1.0, 1.0, 1.0), 0.5, 16)
        >>> VarianceReport((row,), num_particles=4, num_samples=100, target_snr=1.0).row("basic").num_particles_needed
        16
    """

    rows: tuple[VarianceRow, ...]
    num_particles: int  # per estimate
    num_samples: int  # estimates per estimator
    target_snr: float
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Estimators that do not support the program, with the reason."""

    def row(self, estimator: str, parameter: str = ALL) -> VarianceRow:
        """Return the row of an estimator and a parameter; raise ``KeyError`` if there is none."""
        for row in self.rows:
            if (row.estimator, row.parameter) == (estimator, parameter):
                return row
        raise KeyError(f"there is no row for the estimator {estimator!r} and the parameter {parameter!r}")

    def __str__(self) -> str:
        title = (
            f"variance of the ELBO's gradient with {self.num_particles} particles, {self.num_samples} estimates each "
            f"[95 % interval]; SNR: |mean| / sd; needed: particles for an SNR of {self.target_snr:g}"
        )
        header = ("parameter", "estimator", "variance", "reduction", "SNR", "needed")
        cells = [header, *(_format_row(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
        notes = [f"skipped: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([title, *lines, *notes])


def variance_report(
    model: Program,
    guide: Program,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 200,
    num_particles: int = 4,
    estimators: Mapping[str, ELBO] | None = None,
    vectorize_particles: bool = False,
    target_snr: float = 1.0,
    num_warmup: int = 20,
) -> VarianceReport:
    """Compare the variance of several estimators of the ELBO's gradient, for each parameter of the guide.

    All estimators use the same random numbers, so ratios of variances are more precise than variances. All must be
    unbiased: the mean gradient is that of the estimator with the least variance. The number of particles needed assumes
    a variance proportional to ``1 / num_particles``, which is slightly pessimistic for leave-one-out baselines.

    Args:
        model: Pyro model.
        guide: Pyro guide, with the current values of its parameters. ``.grad`` is not changed.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_samples: number of gradient estimates per estimator.
        num_particles: number of particles per estimate.
        estimators: estimators by name, all with ``num_particles`` particles. None for ``default_estimators``, including
            one with learned baselines if sites of the guide specify networks for them; these are not trained here.
        vectorize_particles: option of the default estimators.
        target_snr: signal-to-noise ratio for which the number of particles needed is computed.
        num_warmup: number of estimates at the start that only update the running averages of baselines.

    Raises:
        ValueError: an estimator has another number of particles, the guide has no parameters, or the first estimator
            does not support the program.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> from zoo.inference import BlackBoxELBO
        >>> from zoo.inference.diagnostics import ScoreFunctionELBO
        >>> def model():
        ...     with pyro.plate("data", 3):
        ...         pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=torch.ones(3))
        >>> def guide():
        ...     logits = pyro.param("logits", torch.zeros(3))
        ...     with pyro.plate("data", 3):
        ...         pyro.sample("z", dist.Bernoulli(logits=logits))
        >>> few = {"basic": ScoreFunctionELBO(2, baseline="none"), "Rao-Blackwell": BlackBoxELBO(2, baseline="none")}
        >>> report = variance_report(model, guide, num_samples=20, num_particles=2, estimators=few, num_warmup=0)
        >>> report.row("Rao-Blackwell", "logits").reduction.low > 1
        True
    """
    numbers = {"num_samples": num_samples, "num_warmup": num_warmup, "num_particles": num_particles}
    check_constraints({**numbers, "target_snr": target_snr}, CONSTRAINTS)
    args, kwargs = as_args(args), dict(kwargs or {})
    seeds = torch.randint(2**62, (num_warmup + num_samples,)).tolist()
    with torch.random.fork_rng(devices=[]):
        parameters = _guide_parameters(guide, args, kwargs)

        def gradient(elbo: ELBO, seed: int) -> Tensor:
            if not hasattr(elbo, "differentiable_loss"):
                raise ValueError(
                    f"{type(elbo).__name__} has no differentiable_loss, so its gradient cannot be measured"
                )
            torch.manual_seed(seed)
            loss: Tensor = elbo.differentiable_loss(model, guide, *args, **kwargs)
            return per_sample_gradients(loss.reshape(1), list(parameters.values())).double()

        if estimators is None:
            baselines = (*BASELINES, "learned") if _has_baseline_networks(guide, args, kwargs) else BASELINES
            estimators = default_estimators(num_particles, vectorize_particles, baselines)
        for name, elbo in estimators.items():
            if elbo.num_particles != num_particles:
                raise ValueError(
                    f"estimator {name!r} has {elbo.num_particles} particles, but the report uses {num_particles}; set "
                    f"num_particles={elbo.num_particles}, or compare it in another report"
                )
        applicable, skipped = _applicable_estimators(estimators, gradient, seeds[0])
        for seed in seeds[:num_warmup]:
            for elbo in applicable.values():
                gradient(elbo, seed)
        edges = [num_warmup + num_samples * batch // NUM_BATCHES for batch in range(NUM_BATCHES + 1)]
        batches = [
            {name: _moments(gradient(elbo, seed) for seed in seeds[start:end]) for name, elbo in applicable.items()}
            for start, end in pairwise(edges)
        ]
    rows = tuple(_make_rows(batches, parameters, num_samples, num_particles, target_snr))
    return VarianceReport(rows, num_particles, num_samples, target_snr, skipped)


def _has_baseline_networks(guide: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a site of the guide specifies a network for its baseline."""
    with torch.no_grad():
        nodes = poutine.trace(guide).get_trace(*args, **kwargs).nodes.values()
    infers: list[Mapping[str, Any]] = [node["infer"] or {} for node in nodes if node["type"] == "sample"]
    return any("nn_baseline" in (infer.get("baseline") or {}) for infer in infers)


def _guide_parameters(guide: Program, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the unconstrained parameters of a guide by name: its own, and those it uses from Pyro's store."""
    with torch.no_grad(), poutine.block(), poutine.trace(param_only=True) as captured:
        guide(*args, **kwargs)
    values: dict[str, Any] = {name: node["value"] for name, node in captured.trace.nodes.items()}
    own = dict(guide.named_parameters()) if isinstance(guide, nn.Module) else {}
    # The store may hold another module's parameters under the same names, with $$$ for dots.
    dotted = {name: name.replace("$$$", ".") for name in values}
    foreign = [name for name, own_name in dotted.items() if not {own_name, f"{own_name}_unconstrained"} & own.keys()]
    stored = {name: values[name].unconstrained() for name in foreign}
    found = {name: x for name, x in (own | stored).items() if x.requires_grad}
    if not found:
        raise ValueError("the guide has no parameters that require a gradient")
    return found


def _applicable_estimators(
    estimators: Mapping[str, ELBO], gradient: Gradient, seed: int
) -> tuple[dict[str, ELBO], dict[str, str]]:
    """Run each estimator once; return those that support the program, and the error messages of the others."""
    if not estimators:
        raise ValueError("there are no estimators to compare")
    applicable: dict[str, ELBO] = {}
    skipped: dict[str, str] = {}
    for name, elbo in estimators.items():
        try:
            gradient(elbo, seed)
            applicable[name] = elbo
        except ValueError as error:
            if not applicable:  # if the first estimator fails, the program is assumed to be wrong
                raise
            skipped[name] = str(error)
    return applicable, skipped


def _moments(gradients: Iterator[Tensor]) -> RunningMoments:
    moments = RunningMoments()
    for gradient in gradients:
        moments.update(gradient, gradient.new_ones(1))
    return moments


def _make_rows(
    batches: Sequence[Mapping[str, RunningMoments]],
    parameters: Mapping[str, Tensor],
    num_samples: int,
    num_particles: int,
    target_snr: float,
) -> Iterator[VarianceRow]:
    """Yield a row for each estimator, for each parameter in turn and then for all parameters together."""
    sizes = [parameter.numel() for parameter in parameters.values()]
    variances = {
        name: torch.stack([_sum_per_parameter(batch[name].m2 / (batch[name].weight - 1), sizes) for batch in batches])
        for name in batches[0]
    }
    squared_means = {
        name: _sum_per_parameter(_mean_gradient([batch[name] for batch in batches]).square(), sizes)
        for name in variances
    }
    first = next(iter(variances.values()))
    for i, parameter in enumerate((*parameters, ALL)):
        most_precise = min(variances, key=lambda name: variances[name][:, i].mean().item())
        squared_mean = squared_means[most_precise][i]
        squared_error = variances[most_precise][:, i].mean() / num_samples
        significant = squared_mean > MIN_Z**2 * squared_error
        signal = (squared_mean - squared_error).sqrt().item() if significant else math.nan
        for name, per_batch in variances.items():
            variance, reduction = jackknife_interval(per_batch[:, i]), jackknife_interval(first[:, i], per_batch[:, i])
            snr = signal / math.sqrt(variance.value) if variance.value > 0 else signal * math.inf
            needed = None if math.isnan(signal) else max(1, math.ceil(num_particles * (target_snr / snr) ** 2))
            yield VarianceRow(parameter, name, variance, reduction, snr, needed)


def _mean_gradient(batches: Sequence[RunningMoments]) -> Float64[Tensor, " size"]:
    count = sum(batch.weight for batch in batches)
    return torch.stack([batch.mean * (batch.weight / count) for batch in batches]).sum(0)


def _sum_per_parameter(x: Float64[Tensor, " size"], sizes: Sequence[int]) -> Float64[Tensor, " parameters"]:
    """Return the sum over the elements of each parameter, followed by the total."""
    sums = torch.stack([part.sum() for part in x.split(list(sizes))])
    return torch.cat([sums, sums.sum(0, keepdim=True)])


def _format_row(row: VarianceRow) -> tuple[str, ...]:
    snr = "–" if math.isnan(row.signal_to_noise) else f"{row.signal_to_noise:.2g}"
    needed = "no signal" if row.num_particles_needed is None else f"{row.num_particles_needed:,}"
    reduction = "–" if math.isnan(row.reduction.value) else f"× {row.reduction}"
    return row.parameter, row.estimator, str(row.variance), reduction, snr, needed
