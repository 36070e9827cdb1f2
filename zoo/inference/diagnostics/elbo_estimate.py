from typing import NamedTuple

from jaxtyping import Float64
from torch import Tensor

from zoo.inference.diagnostics.posterior_samples import Draws


class ElboEstimate(NamedTuple):
    """The evidence lower bound ``E_q[log p(x, z) - log q(z)]``, and how well it is known.

    Example:
        >>> print(ElboEstimate(value=-12.3456, standard_error=0.0123, draws=1000))
        ELBO -12.346 ± 0.012 nats (standard error over 1,000 fresh draws)
    """

    value: float
    """In nats."""
    standard_error: float
    """Of the mean over the draws, in nats."""
    draws: int

    def __str__(self) -> str:
        return (
            f"ELBO {self.value:.3f} ± {self.standard_error:.2g} nats (standard error over {self.draws:,} fresh draws)"
        )


def elbo_estimate(draws: Draws) -> ElboEstimate:
    """Estimate the ELBO of a guide from fresh draws.

    Raises:
        ValueError: there are fewer than 2 draws.
        FloatingPointError: the weight of a draw is not finite.

    Example:
        >>> import torch
        >>> log_p = torch.tensor([-1.0, -3.0], dtype=torch.float64)
        >>> elbo_estimate(Draws({}, log_p, 0 * log_p, {}, {}, False))
        ElboEstimate(value=-2.0, standard_error=1.0, draws=2)
    """
    log_weights = finite_log_weights(draws)
    count = len(log_weights)
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 draws, got {count}")
    return ElboEstimate(log_weights.mean().item(), log_weights.std().item() / count**0.5, count)


def finite_log_weights(draws: Draws) -> Float64[Tensor, " draws"]:
    """Give the logarithms of the weights of all draws, ``log p(x, z) - log q(z)``.

    Raises:
        FloatingPointError: one is not finite; the sentence says which, and why.
    """
    log_weights = draws.log_weights
    wrong = (~log_weights.isfinite()).nonzero().flatten().tolist()
    if wrong:
        log_p, log_q = draws.log_p[wrong[0]], draws.log_q[wrong[0]]
        raise FloatingPointError(
            f"{len(wrong)} of {len(log_weights)} draws have a weight that is not finite; in draw {wrong[0]} log p is "
            f"{log_p:.6g} and log q is {log_q:.6g}: look for values outside the model's support, or at the parameters"
        )
    return log_weights
