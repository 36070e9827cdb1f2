import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from zoo.inference.diagnostics.posterior_samples import PosteriorSamples

GOOD_K, USABLE_K = 0.5, 0.7
MIN_SAMPLES, MIN_TAIL_SIZE = 100, 10
TAIL_RESOLUTION = 1e-4  # nats; smaller differences are rounding errors of single precision
EQUAL_WEIGHTS_TOLERANCE = 0.01  # nats


class ParetoK(NamedTuple):
    """Pareto k-hat of a guide's importance weights: the shape of their tail, a diagnostic of the guide.

    Example:
        >>> print(ParetoK(value=0.31, standard_error=0.13, num_samples=1000))
        k-hat 0.31 ± 0.13 over 1,000 samples: good, the guide is close to the posterior where it samples
    """

    value: float
    """``k̂``: moments of the weights of order ``1 / k`` and above do not exist. 0 if all weights are equal; NaN if the
    largest weights are too few or too similar for a fit."""
    standard_error: float
    """Asymptotic: ``(1 + k̂) / sqrt(m)`` for a fit to the ``m`` largest weights."""
    num_samples: int

    @property
    def verdict(self) -> str:
        """``"good"`` below 0.5, ``"usable"`` below 0.7, else ``"unreliable"``; ``"unknown"`` if k-hat is NaN."""
        if math.isnan(self.value):
            return "unknown"
        return "good" if self.value < GOOD_K else "usable" if self.value < USABLE_K else "unreliable"

    @property
    def num_samples_needed(self) -> float:
        """Samples needed for a reliable estimate, ``10^(1 / (1 - k̂))``; infinite from 0.99 on."""
        return 10 ** (1 / (1 - max(self.value, 0))) if self.value < 0.99 else math.inf

    @property
    def too_few_samples(self) -> bool:
        """Whether there are too few samples for a reliable verdict."""
        return self.num_samples < MIN_SAMPLES or (self.value < USABLE_K and self.num_samples < self.num_samples_needed)

    def __str__(self) -> str:
        meaning = {
            "good": "the guide is close to the posterior where it samples",
            "usable": "the guide is a rough approximation, which importance sampling can correct",
            "unreliable": "the guide misses a relevant part of the posterior",
            "unknown": "the largest weights are too few or too similar",
        }
        found = f"k-hat {self.value:.2f} ± {self.standard_error:.2f} over {self.num_samples:,} samples"
        few = "; take more samples to be sure" if self.too_few_samples else ""
        return f"{found}: {self.verdict}, {meaning[self.verdict]}{few}"


def pareto_k(samples: PosteriorSamples) -> ParetoK:
    """Return the Pareto k-hat of the importance weights ``p(x, z) / q(z)``; warn if there are too few samples.

    Yao, Vehtari, Simpson & Gelman, "Yes, but did it work? Evaluating variational inference", 2018. It does not detect
    parts of the posterior far from all samples.

    Raises:
        ValueError: k-hat is not defined for these samples; see ``k_hat_unavailable_reason``.
        FloatingPointError: the weight of a sample is not finite.

    Example:
        >>> log_p = torch.randn(4000, dtype=torch.float64) / 10
        >>> pareto_k(PosteriorSamples({}, log_p, 0 * log_p, {}, {}, False)).verdict
        'good'
    """
    if (reason := k_hat_unavailable_reason(samples)) is not None:
        raise ValueError(reason)
    found = fit_pareto_k(samples.finite_log_weights())
    if found.too_few_samples and not math.isnan(found.value):
        needed = found.num_samples_needed
        advice = "more" if math.isinf(needed) else f"at least {max(MIN_SAMPLES, math.ceil(needed)):,}"
        warnings.warn(
            f"{found.num_samples} samples are too few for a k-hat of {found.value:.2f}: take {advice}", stacklevel=2
        )
    return found


def k_hat_unavailable_reason(samples: PosteriorSamples) -> str | None:
    """Return why k-hat is not defined for samples; None if it is.

    Example:
        >>> log_p = torch.zeros(5, dtype=torch.float64)
        >>> k_hat_unavailable_reason(PosteriorSamples({}, log_p, log_p, {}, {}, subsampled=True))
        'no k-hat: the samples use subsamples of the data, and k-hat needs the weights of all data'
    """
    if samples.subsampled:
        return "no k-hat: the samples use subsamples of the data, and k-hat needs the weights of all data"
    if samples.scaled:
        return "no k-hat: terms are scaled (poutine.scale), so the weights are not those of the posterior"
    return point_mass_reason(samples.num_constant_elements) if samples.num_constant_elements else None


def point_mass_reason(num_constant_elements: int) -> str:
    """Return why a guide with point masses has no k-hat.

    Example:
        >>> print(point_mass_reason(2))
        no k-hat: 2 values of the guide are the same in all samples, and weights cannot detect what such a guide misses
    """
    one = num_constant_elements == 1
    values = "a value of the guide is" if one else f"{num_constant_elements:,} values of the guide are"
    return f"no k-hat: {values} the same in all samples, and weights cannot detect what such a guide misses"


def fit_pareto_k(log_weights: Float[Tensor, " samples"]) -> ParetoK:
    """Fit a generalized Pareto distribution to the ``min(n / 5, 3 sqrt(n))`` largest of ``n`` weights.

    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", 2024. The value is NaN if fewer than
    10 of these weights are distinct, and infinite if fewer than 10 weights are larger than the others and more than
    half of the total.

    Example:
        >>> uniform = torch.rand(10_000, dtype=torch.float64)
        >>> abs(fit_pareto_k(-0.6 * uniform.log()).value - 0.6) < 0.4
        True
    """
    count = len(log_weights)
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    if size < MIN_TAIL_SIZE:
        return ParetoK(math.nan, math.nan, count)
    ordered = (log_weights.double() - log_weights.max()).sort().values
    if -ordered[0] < EQUAL_WEIGHTS_TOLERANCE:
        return ParetoK(0.0, 0.0, count)
    vanishing = math.log(torch.finfo(torch.float64).tiny)
    threshold, tail = ordered[-size - 1], ordered[-size:]
    tail = tail[tail > max(threshold.item(), vanishing)]
    if len(tail) < MIN_TAIL_SIZE and tail.exp().sum() > ordered.exp().sum() / 2:  # a few weights dominate
        return ParetoK(math.inf, math.inf, count)
    if len((tail / TAIL_RESOLUTION).round().unique()) < MIN_TAIL_SIZE:
        return ParetoK(math.nan, math.nan, count)
    k, _ = fit_generalized_pareto(tail.exp() - threshold.exp())
    return ParetoK(float(k), (1 + max(float(k), 0)) / math.sqrt(len(tail)), count)
