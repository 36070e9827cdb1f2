from typing import NamedTuple

from jaxtyping import Float64
from torch import Tensor

from zoo.inference.diagnostics.posterior_samples import PosteriorSamples


class ElboEstimate(NamedTuple):
    """Estimate of the evidence lower bound ``E_q[log p(x, z) - log q(z)]``.

    Example:
        >>> print(ElboEstimate(value=-12.3456, standard_error=0.0123, num_samples=1000))
        ELBO -12.346 ± 0.012 nats (standard error over 1,000 fresh draws)
    """

    value: float
    """In nats."""
    standard_error: float
    """Standard error of the mean, in nats."""
    num_samples: int

    def __str__(self) -> str:
        error = f"standard error over {self.num_samples:,} fresh draws"
        return f"ELBO {self.value:.3f} ± {self.standard_error:.2g} nats ({error})"


def elbo_estimate(samples: PosteriorSamples) -> ElboEstimate:
    """Return the ELBO estimated from samples of a guide.

    Raises:
        ValueError: there are fewer than 2 samples.
        FloatingPointError: the weight of a sample is not finite.

    Example:
        >>> import torch
        >>> log_p = torch.tensor([-1.0, -3.0], dtype=torch.float64)
        >>> elbo_estimate(PosteriorSamples({}, log_p, 0 * log_p, {}, {}, False))
        ElboEstimate(value=-2.0, standard_error=1.0, num_samples=2)
    """
    log_weights = finite_log_weights(samples)
    count = len(log_weights)
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 draws, got {count}")
    return ElboEstimate(log_weights.mean().item(), log_weights.std().item() / count**0.5, count)


def finite_log_weights(samples: PosteriorSamples) -> Float64[Tensor, " draws"]:
    """Return ``log p(x, z) - log q(z)`` of each sample; raise ``FloatingPointError`` if one is not finite."""
    log_weights = samples.log_weights
    wrong = (~log_weights.isfinite()).nonzero().flatten().tolist()
    if wrong:
        log_p, log_q = samples.log_p[wrong[0]], samples.log_q[wrong[0]]
        raise FloatingPointError(
            f"{len(wrong)} of {len(log_weights)} draws have a weight that is not finite; in draw {wrong[0]} log p is "
            f"{log_p:.6g} and log q is {log_q:.6g}: check for values outside the model's support, and the parameters"
        )
    return log_weights
