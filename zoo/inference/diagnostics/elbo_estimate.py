from typing import NamedTuple

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
    log_weights = samples.finite_log_weights()
    count = len(log_weights)
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 draws, got {count}")
    return ElboEstimate(log_weights.mean().item(), log_weights.std().item() / count**0.5, count)
