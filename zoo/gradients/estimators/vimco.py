import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.gradients.baselines import Baseline


def iwae_bound(log_weights: Float[Tensor, "..."], dim: int = 0) -> Float[Tensor, "..."]:
    """Importance-weighted bound of the log-evidence: ``log 1/K Σ_k w_k``, in nats.

    ``w_k = p(x, h_k) / q(h_k | x)``. With one sample its expectation is the ELBO, with more of them it is tighter.
    Burda, Grosse & Salakhutdinov, "Importance weighted autoencoders", 2016.

    Args:
        log_weights: ``log w_k``, in nats.
        dim: dimension of the samples.

    Example:
        >>> iwae_bound(torch.log(torch.tensor([1.0, 3.0])))
        tensor(0.6931)
    """
    return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])


def leave_one_out_bounds(log_weights: Float[Tensor, "*dims"], dim: int = 0) -> Float[Tensor, "*dims"]:
    """For each sample, the multi-sample bound if its weight were the geometric mean of the others'.

    ``L_{-k} = log 1/K (exp(1/(K-1) Σ_{j≠k} log w_j) + Σ_{j≠k} w_j)``, equation 10 of Mnih & Rezende, "Variational
    inference for Monte Carlo objectives", 2016.

    Args:
        log_weights: ``log w_k``, in nats.
        dim: dimension of the samples, of which at least 2 are needed.

    Raises:
        ValueError: there are fewer than 2 samples.

    Example:
        >>> leave_one_out_bounds(torch.tensor([0.0, 5.0]))
        tensor([5., 0.])
    """
    samples = log_weights.shape[dim]
    if samples < 2:
        raise ValueError(f"leaving one sample out needs at least 2 of them along dimension {dim}, got {samples}")
    log_weights = log_weights.movedim(dim, 0)
    held_out = (log_weights.sum(0) - log_weights) / (samples - 1)
    own = torch.eye(samples, dtype=torch.bool, device=log_weights.device)
    own = own.reshape(samples, samples, *[1] * (log_weights.ndim - 1))
    replaced = torch.where(own, held_out.unsqueeze(1), log_weights.unsqueeze(0))
    return iwae_bound(replaced, dim=1).movedim(0, dim)


class VIMCOBaseline(Baseline):
    """VIMCO's baseline of the multi-sample bound: for each sample, the bound without what it contributes.

    Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016. The signal is the bound, the same for all
    samples of an input; the context is ``log w_k``, of the signal's shape. Only the *other* samples' weights are used.

    Args:
        dim: dimension of ``log_prob`` that holds the samples.

    Raises:
        ValueError: there are no log-weights, or fewer than 2 samples.

    Example:
        >>> log_weights = torch.tensor([0.0, 5.0])
        >>> bound = iwae_bound(log_weights)
        >>> VIMCOBaseline(dim=0)(bound.expand(2), context=log_weights).value
        tensor([5., 0.])
    """

    compares_samples = True
    context_holds_sample = True

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def predict(
        self, signal: Float[Tensor, "*dims"], context: Tensor | None, mask: Bool[Tensor, "*dims"] | None
    ) -> Tensor:
        """Give the bounds without each sample."""
        if context is None or context.shape != signal.shape:
            raise ValueError("VIMCOBaseline needs context=, the log-weight of each sample")
        return leave_one_out_bounds(context, self.dim)
