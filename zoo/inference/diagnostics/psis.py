import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from zoo.inference.diagnostics.elbo_estimate import finite_log_weights
from zoo.inference.diagnostics.posterior_samples import Draws

GOOD, USABLE = 0.5, 0.7
FEWEST, FEWEST_IN_TAIL = 100, 10
FLAT = 1e-4  # nats; weights that differ by less are equal up to the rounding of single precision
ALIKE = 0.01  # nats; weights none of which differ by more are as good as equal


class ParetoK(NamedTuple):
    """Tail index of a guide's importance weights, and what it says of the guide.

    Example:
        >>> print(ParetoK(value=0.31, standard_error=0.13, draws=1000))
        k-hat 0.31 ± 0.13 over 1,000 draws: good, the guide is close to the posterior wherever it draws
    """

    value: float
    """``k̂``; moments of the weights above ``1 / k`` do not exist. 0 where all weights are equal, NaN where the largest
    are too few or too much alike to tell."""
    standard_error: float
    """Of a maximum-likelihood fit to as large a tail, ``(1 + k̂) / sqrt(tail)``."""
    draws: int

    @property
    def verdict(self) -> str:
        """``"good"`` below 0.5, ``"usable"`` below 0.7, else ``"not to be trusted"``; or ``"cannot be told"``."""
        if math.isnan(self.value):
            return "cannot be told"
        return "good" if self.value < GOOD else "usable" if self.value < USABLE else "not to be trusted"

    @property
    def draws_needed(self) -> float:
        """So many draws are needed to tell so large a ``k̂``, ``10^(1 / (1 - k̂))``; as good as infinite near 1."""
        return 10 ** (1 / (1 - max(self.value, 0))) if self.value < 0.99 else math.inf

    @property
    def too_few(self) -> bool:
        """Whether a verdict from so few draws says little."""
        return self.draws < FEWEST or (self.value < USABLE and self.draws < self.draws_needed)

    def __str__(self) -> str:
        meaning = {
            "good": "the guide is close to the posterior wherever it draws",
            "usable": "the guide is coarse, but importance sampling can mend it",
            "not to be trusted": "the guide misses a part of the posterior that matters",
            "cannot be told": "the largest weights are too few, or too much alike, to tell",
        }
        found = f"k-hat {self.value:.2f} ± {self.standard_error:.2f} over {self.draws:,} draws"
        few = "; take more draws to be sure" if self.too_few else ""
        return f"{found}: {self.verdict}, {meaning[self.verdict]}{few}"


def pareto_k(draws: Draws) -> ParetoK:
    """Judge a guide by the tail of its importance weights ``p(x, z) / q(z)``.

    Yao, Vehtari, Simpson & Gelman, "Yes, but did it work? Evaluating variational inference", 2018. Of few draws it says
    little, and warns.

    It knows only of what the guide draws: of a part of the posterior that no draw came near it says nothing.

    Raises:
        ValueError: the weights are not those of the posterior, or do not tell; see ``no_k_hat``.
        FloatingPointError: the weight of a draw is not finite.

    Example:
        >>> log_p = torch.randn(4000, dtype=torch.float64) / 10
        >>> pareto_k(Draws({}, log_p, 0 * log_p, {}, {}, False)).verdict
        'good'
    """
    if (reason := no_k_hat(draws)) is not None:
        raise ValueError(reason)
    found = tail_index(finite_log_weights(draws))
    if found.too_few and not math.isnan(found.value):
        needed = (
            "more" if math.isinf(found.draws_needed) else f"at least {max(FEWEST, math.ceil(found.draws_needed)):,}"
        )
        warnings.warn(f"{found.draws} draws are too few for a k-hat of {found.value:.2f}: take {needed}", stacklevel=2)
    return found


def no_k_hat(draws: Draws) -> str | None:
    """Say why draws have no k-hat; None if they have one.

    Example:
        >>> log_p = torch.zeros(5, dtype=torch.float64)
        >>> no_k_hat(Draws({}, log_p, log_p, {}, {}, subsampled=True))
        'no k-hat: the draws saw subsamples of the data, and it needs weights of the whole'
    """
    if draws.subsampled:
        return "no k-hat: the draws saw subsamples of the data, and it needs weights of the whole"
    if draws.scaled:
        return "no k-hat: terms are scaled (poutine.scale), and weights are not those of the posterior"
    return of_points(draws.points) if draws.points else None


def of_points(points: int) -> str:
    """Say that a guide which does not spread cannot be judged.

    Example:
        >>> print(of_points(2))
        no k-hat: 2 values of the guide are the same in all draws, and weights do not tell what such a guide misses
    """
    values = "a value of the guide is" if points == 1 else f"{points:,} values of the guide are"
    return f"no k-hat: {values} the same in all draws, and weights do not tell what such a guide misses"


def tail_index(log_weights: Float[Tensor, " draws"]) -> ParetoK:
    """Fit a generalised Pareto distribution to the largest weights: the ``min(n / 5, 3 sqrt(n))`` largest of ``n``.

    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", 2024. NaN if there are fewer than 10
    of them, or fewer different ones, as a guide of few outcomes has them; infinite if so few have most of the weight.

    Example:
        >>> uniform = torch.rand(10_000, dtype=torch.float64)
        >>> abs(tail_index(-0.6 * uniform.log()).value - 0.6) < 0.4
        True
    """
    count = len(log_weights)
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    if size < FEWEST_IN_TAIL:
        return ParetoK(math.nan, math.nan, count)
    ordered = (log_weights.double() - log_weights.max()).sort().values
    if -ordered[0] < ALIKE:
        return ParetoK(0.0, 0.0, count)
    vanishing = math.log(torch.finfo(torch.float64).tiny)
    threshold, tail = ordered[-size - 1], ordered[-size:]
    tail = tail[tail > max(threshold.item(), vanishing)]
    if len(tail) < FEWEST_IN_TAIL and tail.exp().sum() > ordered.exp().sum() / 2:  # a few weights are all that counts
        return ParetoK(math.inf, math.inf, count)
    if len((tail / FLAT).round().unique()) < FEWEST_IN_TAIL:
        return ParetoK(math.nan, math.nan, count)
    k, _ = fit_generalized_pareto(tail.exp() - threshold.exp())
    return ParetoK(float(k), (1 + max(float(k), 0)) / math.sqrt(len(tail)), count)
