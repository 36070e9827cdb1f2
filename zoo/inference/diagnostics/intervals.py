from typing import NamedTuple

import torch
from jaxtyping import Float64
from scipy import stats


class Estimated(NamedTuple):
    """A positive figure and its 95 % interval.

    Example:
        >>> print(Estimated(value=1234.5, low=1000.0, high=1500.0))
        1.23e+03 [1e+03, 1.5e+03]
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimated(
    above: Float64[torch.Tensor, " batches"], below: Float64[torch.Tensor, " batches"] | None = None
) -> Estimated:
    """Mean over batches, or the ratio of two, and its interval by the jackknife, on the scale of its logarithm.

    Efron & Stein, "The jackknife estimate of variance", 1981. Student's t with one degree of freedom a batch, but one.

    Args:
        above: figure of each independent batch of draws, not negative.
        below: what it is divided by, of the same batches.

    Example:
        >>> estimated(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)).value
        2.0
    """
    batches = len(above)
    total = [part.mean() for part in (above, below) if part is not None]
    others = [(part.sum() - part) / (batches - 1) for part in (above, below) if part is not None]
    value = total[0] if below is None else total[0] / total[1]
    without = others[0] if below is None else others[0] / others[1]
    error = (batches - 1) / batches**0.5 * without.log().std()
    half = float(stats.t.ppf(0.975, batches - 1)) * error.nan_to_num()  # where nothing varies
    return Estimated(value.item(), (value * (-half).exp()).item(), (value * half.exp()).item())
