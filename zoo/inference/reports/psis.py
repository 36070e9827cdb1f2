import math
import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from pyro.ops.stats import fit_generalized_pareto
from torch import Tensor

from zoo.inference.reports.draws import Draws
from zoo.inference.reports.evidence import finite_log_weights

GOOD, USABLE = 0.5, 0.7
FEWEST, FEWEST_IN_TAIL = 100, 10
FLAT = 1e-4  # nats; weights that differ by less are equal up to the rounding of single precision


class ParetoK(NamedTuple):
    """Tail index of a guide's importance weights, and what it says of the guide.

    Example:
        >>> print(ParetoK(value=0.31, standard_error=0.13, draws=1000))
        k-hat 0.31 ± 0.13 over 1,000 draws: good, the guide is close to the posterior
    """

    value: float
    """``k̂``; moments of the weights above ``1 / k`` do not exist. 0 where all weights are equal."""
    standard_error: float
    """Of a maximum-likelihood fit to as large a tail, ``(1 + k̂) / sqrt(tail)``."""
    draws: int

    @property
    def verdict(self) -> str:
        """``"good"`` below 0.5, ``"usable"`` below 0.7, else ``"not to be trusted"``."""
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
            "good": "the guide is close to the posterior",
            "usable": "the guide is coarse, but importance sampling can mend it",
            "not to be trusted": "the guide misses a part of the posterior that matters",
        }
        found = f"k-hat {self.value:.2f} ± {self.standard_error:.2f} over {self.draws:,} draws"
        few = "; take more draws to be sure" if self.too_few else ""
        return f"{found}: {self.verdict}, {meaning[self.verdict]}{few}"


def pareto_k(draws: Draws) -> ParetoK:
    """Judge a guide by the tail of its importance weights ``p(x, z) / q(z)``.

    Yao, Vehtari, Simpson & Gelman, "Yes, but did it work? Evaluating variational inference", 2018. Of few draws it says
    little, and warns.

    Raises:
        ValueError: the draws saw subsamples of the data, whose weights vary for another reason; or continuous values
            are the same in all draws, so that the weights do not tell what the guide misses.
        FloatingPointError: the weight of a draw is not finite.

    Example:
        >>> log_p = torch.randn(4000, dtype=torch.float64) / 10
        >>> pareto_k(Draws({}, log_p, 0 * log_p, {}, {}, False)).verdict
        'good'
    """
    if draws.subsampled:
        raise ValueError("k-hat needs weights of the whole data, but the draws saw subsamples; draw without them")
    if draws.points:
        raise ValueError(no_k_hat(draws.points))
    found = tail_index(finite_log_weights(draws))
    if found.too_few:
        needed = (
            "more" if math.isinf(found.draws_needed) else f"at least {max(FEWEST, math.ceil(found.draws_needed)):,}"
        )
        warnings.warn(f"{found.draws} draws are too few for a k-hat of {found.value:.2f}: take {needed}", stacklevel=2)
    return found


def no_k_hat(points: int) -> str:
    """Say that a guide which does not spread cannot be judged.

    Example:
        >>> print(no_k_hat(2))
        no k-hat: 2 values of the guide are the same in all draws, and weights do not tell what such a guide misses
    """
    values = "a value of the guide is" if points == 1 else f"{points:,} values of the guide are"
    return f"no k-hat: {values} the same in all draws, and weights do not tell what such a guide misses"


def tail_index(log_weights: Float[Tensor, " draws"]) -> ParetoK:
    """Fit a generalised Pareto distribution to the largest weights: the ``min(n / 5, 3 sqrt(n))`` largest of ``n``.

    Vehtari, Simpson, Gelman, Yao & Gabry, "Pareto smoothed importance sampling", 2024. Infinite if there are fewer than
    10 of them.

    Example:
        >>> uniform = torch.rand(10_000, dtype=torch.float64)
        >>> abs(tail_index(-0.6 * uniform.log()).value - 0.6) < 0.4
        True
    """
    count = len(log_weights)
    size = math.ceil(min(0.2 * count, 3 * math.sqrt(count)))
    if size < FEWEST_IN_TAIL:
        return ParetoK(math.inf, math.inf, count)
    largest = (log_weights.double() - log_weights.max()).sort().values[-size - 1 :]
    threshold, tail = largest[0], largest[1:]
    tail = tail[tail > max(threshold.item(), math.log(torch.finfo(torch.float64).tiny))]
    if -threshold < FLAT:
        return ParetoK(0.0, 0.0, count)
    if len(tail) < FEWEST_IN_TAIL:  # a few weights are all there is
        return ParetoK(math.inf, math.inf, count)
    k, _ = fit_generalized_pareto(tail.exp() - threshold.exp())
    return ParetoK(float(k), (1 + max(float(k), 0)) / math.sqrt(len(tail)), count)
