import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from zoo.gradients._compilation import uncompilable
from zoo.gradients._enumeration import Draw, moments_by_enumeration
from zoo.gradients._steps import preserve_buffers
from zoo.gradients.graphs._enumeration import MAX_OUTCOMES, enumerate_outcomes, expectation
from zoo.gradients.graphs._provenance.control_flow import tensors_in
from zoo.gradients.graphs._quadrature import Quadrature
from zoo.gradients.graphs.program import Program
from zoo.gradients.variance import GradientMoments, gradient_moments, per_sample_gradients

Estimator = Callable[..., Tensor]
"""``estimator(program, *args, draw=draw)`` returns a scalar whose gradient is the estimate; its only randomness is
``draw(name, distribution)``."""

_POWER = 0.95
_MIN_SAMPLES = 1000


class BiasCheck(NamedTuple):
    """Result of ``check_unbiased``; true if no bias was found. Vectors have one element per element of the parameters.

    Example:
        >>> def coin(graph, theta):
        ...     graph.cost("f", graph.sample("x", torch.distributions.Bernoulli(logits=theta)))
        >>> theta = torch.tensor(0.0, requires_grad=True)
        >>> check = check_unbiased(lambda program, theta, draw: theta / 2, coin, theta)
        >>> check.bias, check.unbiased  # 1/2 - p (1 - p)
        (tensor([0.2500], dtype=torch.float64), False)
    """

    bias: Float[Tensor, " parameters"]
    """Mean of the estimated gradient minus the exact gradient."""
    threshold: Float[Tensor, " parameters"]
    """Largest deviation that does not count as a bias."""
    detectable_bias: Float[Tensor, " parameters"]
    """Smallest bias that is found with 95 % probability, or always if the check is exact."""
    p_value: float
    """Probability of a deviation of this size without a bias, over all parameters; 0 or 1 if the check is exact."""
    exact: bool
    """Whether all outcomes were enumerated."""
    moments: GradientMoments
    """Moments of the estimated gradient."""

    @classmethod
    def from_moments(
        cls,
        moments: GradientMoments,
        gradient: Float[Tensor, " parameters"],
        alpha: float = 1e-6,
        tolerance: float | None = None,
    ) -> "BiasCheck":
        """Compare the moments of an estimated gradient with the exact gradient; see ``check_unbiased``."""
        columns = zip(*((m.mean, m.variance, m.standard_error) for m in moments.parameters), strict=True)
        mean, variance, error = (
            torch.cat([part.flatten().to(gradient.device) for part in column]).double() for column in columns
        )
        exact = moments.skewness_of_mean is None
        if tolerance is None:
            tolerance = 1e-9 if gradient.dtype == torch.float64 else 1e-5
        slack = tolerance * (1 + (mean**2 + variance).sqrt())
        bias = mean - gradient.double()
        excess = (bias.abs() - slack).clamp(min=0)
        if not exact and bool((constant := (variance == 0) & (excess > 0)).any()):
            element = int(constant.int().argmax())
            raise ValueError(
                f"element {element} of the gradient is the same in all samples, and off by {bias[element]:.3g}: the "
                "estimator is biased, or other values are too rare to be sampled; increase num_samples, or use the "
                "exact check (num_samples=None)"
            )
        no_skewness = torch.zeros_like(error)
        skewness = no_skewness if moments.skewness_of_mean is None else moments.skewness_of_mean.double().abs()
        z, z_power = (-torch.special.ndtri(error.new_tensor(p)) for p in (alpha / 2 / len(bias), 1 - _POWER))
        threshold = slack + z * error * (z * skewness / 2 + (1 + (z * skewness / 2) ** 2).sqrt())
        deviation = torch.where(excess == 0, 0, excess / (error**2 + excess * error * skewness).sqrt())
        p_value = min(torch.special.erfc(deviation / math.sqrt(2)).min().item() * len(bias), 1.0)
        return cls(bias, threshold, threshold + z_power * error, p_value, exact, moments)

    @property
    def unbiased(self) -> bool:
        """Whether no bias was found."""
        return bool((self.bias.abs() <= self.threshold).all())

    def __bool__(self) -> bool:
        return self.unbiased

    def __str__(self) -> str:
        finding = "no bias was found" if self.unbiased else "the estimator is biased"
        worst = int((self.bias.abs() / self.threshold.clamp(min=torch.finfo(self.bias.dtype).tiny)).argmax())
        size = f"the expected gradient is off by {self.bias[worst]:.3g} in element {worst}"
        if self.exact:
            return f"{finding}: {size}; {self.threshold[worst]:.3g} is tolerated"
        found = f"a bias of {self.detectable_bias[worst]:.3g} there is found with {_POWER:.0%} probability"
        return f"{finding}: {size}, p = {self.p_value:.3g}; {found}"

    def raise_if_biased(self) -> None:
        """Raise ``AssertionError`` if a bias was found."""
        if not self.unbiased:
            raise AssertionError(str(self))


@uncompilable
def check_unbiased(
    estimator: Estimator,
    program: Program,
    *args: Any,
    batch_dims: int = 0,
    quadrature: Mapping[str, int] | None = None,
    breakpoints: Mapping[str, Sequence[float]] | None = None,
    num_samples: int | None = None,
    alpha: float = 1e-6,
    tolerance: float | None = None,
    modules: Iterable[nn.Module] = (),
    max_outcomes: int = MAX_OUTCOMES,
) -> BiasCheck:
    """Check whether the expected gradient of an estimator is the gradient of a program's expected cost.

    The check is exact by default: the estimator is run on every outcome ``u`` of its draws, and unbiased if
    ``|Σ_u p(u) g(u) - ∇ E[f]| ≤ tolerance``. With ``num_samples`` it is a z-test, which assumes a normal mean:
    ``|ḡ - ∇ E[f]| ≤ z · sqrt(Var[g] / n)`` with Bonferroni's ``z`` for the number of parameters.

    If the gradient is rarely large, its variance is underestimated whenever its mean is. The threshold is therefore
    increased, with the skewness ``s`` of the mean, to ``z (z s / 2 + sqrt(1 + (z s / 2)²))`` standard errors. Values
    that do not occur in the samples are not detected.

    Args:
        estimator: returns a scalar whose gradient is the estimate. All its randomness must come from
            ``draw(name, distribution)``, which returns values without a gradient; a pathwise estimator draws its noise.
        program: see ``trace``.
        args: arguments of the program, preferably in double precision. Gradients are those of tensors that require one,
            and of the parameters of modules.
        batch_dims: as in ``expected_cost``.
        quadrature: as in ``expected_cost``, for variables of the program and noise of the estimator.
        breakpoints: as in ``expected_cost``, for the same variables.
        num_samples: number of gradients of the z-test; None for the exact check.
        alpha: false-positive rate of the z-test.
        tolerance: for rounding, relative to 1 + the root mean square of the gradients; None for 1e-9 in double
            precision, 1e-5 in single.
        modules: modules whose buffers are restored after each run, such as baselines that learn.
        max_outcomes: maximum number of outcomes of the program, and of the estimator.

    Raises:
        ValueError: an option is invalid, no argument requires a gradient, the estimator does not return a scalar or is
            not deterministic given its draws, a wrong element of the gradient is the same in all samples, or
            ``expected_cost`` does not support the program.

    Example:
        >>> from zoo.gradients.graphs import trace
        >>> def program(graph, theta):
        ...     x = graph.sample("x", torch.distributions.Bernoulli(logits=theta))
        ...     graph.cost("f", (x - 0.45) ** 2)
        >>> def estimator(program, theta, *, draw):
        ...     return trace(program, theta, draw=draw).surrogate()
        >>> theta = torch.zeros((), dtype=torch.double, requires_grad=True)
        >>> check_unbiased(estimator, program, theta).unbiased
        True
        >>> print(check_unbiased(lambda *args, draw: estimator(*args, draw=draw) / 2, program, theta))
        the estimator is biased: the expected gradient is off by -0.0125 in element 0; 1.06e-09 is tolerated
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if num_samples is not None and num_samples < _MIN_SAMPLES:
        raise ValueError(f"a z-test needs at least {_MIN_SAMPLES} samples, got {num_samples}")
    parameters, rules = _parameters_in(args), Quadrature(quadrature, breakpoints)
    outcomes = enumerate_outcomes(rules, program, args, batch_dims, max_outcomes)
    (exact,) = per_sample_gradients(expectation(outcomes)[None], parameters)
    stateful = [*modules, *(x for x in (estimator, *args) if isinstance(x, nn.Module))]

    def estimate(draw: Draw) -> Tensor:
        with preserve_buffers(stateful):
            surrogate = estimator(program, *args, draw=draw)
        if not isinstance(surrogate, Tensor) or surrogate.ndim:
            got = f"shape {tuple(surrogate.shape)}" if isinstance(surrogate, Tensor) else type(surrogate).__name__
            raise ValueError(f"the estimator must return a scalar tensor, got {got}")
        return surrogate

    def sample(name: str, distribution: Distribution) -> Tensor:
        rules.seen.add(name)
        return distribution.sample()

    if num_samples is None:
        moments = moments_by_enumeration(estimate, rules, parameters, max_outcomes)
    else:
        moments = gradient_moments(lambda: estimate(sample), parameters, num_samples)
    rules.check_seen()
    return BiasCheck.from_moments(moments, exact, alpha, tolerance)


def _parameters_in(args: Sequence[Any]) -> list[Tensor]:
    """Return the tensors to differentiate with respect to, each once."""
    modules = [parameter for x in args if isinstance(x, nn.Module) for parameter in x.parameters()]
    found = {id(x): x for x in [*tensors_in(args), *modules] if x.requires_grad}
    if not found:
        raise ValueError("none of the program's arguments requires a gradient; set requires_grad=True")
    return list(found.values())
