from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.gradients.baselines import Baseline, Mask, Signal

Scaling = Literal["parameter", "factor"]
Estimate = Literal["leave_one_out", "same_samples"]


def optimal_scaling(
    score: Float[Tensor, "..."], signal: Float[Tensor, "*dims"], dim: int = 0, leave_one_out: bool = False
) -> Float[Tensor, "..."]:
    """Return the coefficient of the score, as control variate, that minimizes the variance of the gradient.

    ``a* = Cov(f s, s) / Var(s)``, equation 8 of Ranganath, Gerrish & Blei, "Black box variational inference", 2014,
    estimated by ``Σ f s² / Σ s²`` as ``E[s] = 0`` is known.

    Args:
        score: ``s = ∇ log q(z)`` of each sample. ``(*dims)`` for the scaling of one parameter; ``(*dims, parameters)``
            for a single scaling of all parameters of a factor, ``Σ_d Cov(f s_d, s_d) / Σ_d Var(s_d)``, equation 9 of
            arXiv:1401.0118v1.
        signal: ``f``.
        dim: dimension of the samples.
        leave_one_out: estimate the scaling of each sample from the others.

    Returns:
        The scaling in the units of the signal, ``(*dims)``, but of size 1 along ``dim`` unless ``leave_one_out``; 0
        where all scores are 0.

    Example:
        >>> optimal_scaling(score=torch.tensor([-0.5, 0.5]), signal=torch.tensor([1.0, 3.0]))
        tensor([2.])
    """
    square = score.square()
    if square.ndim > signal.ndim:
        square = square.flatten(signal.ndim).sum(-1)
    total = _leave_one_out_sum if leave_one_out else partial(torch.sum, keepdim=True)
    information = total(square, dim)
    return total(signal * square, dim) / torch.where(information > 0, information, 1)


def _leave_one_out_sum(x: Tensor, dim: int) -> Tensor:
    """Return, for each element, the sum of the others; not ``total - x``, which is inexact if ``x`` is large."""
    zero = torch.zeros_like(x.narrow(dim, 0, 1))
    before = torch.cat([zero, x.cumsum(dim)], dim).narrow(dim, 0, x.shape[dim])
    after = torch.cat([zero, x.flip(dim).cumsum(dim)], dim).narrow(dim, 0, x.shape[dim]).flip(dim)
    return before + after


class ControlVariate(Baseline):
    """Baseline ``a*`` that makes the score ``s`` a control variate, ``f s - a* s``; see ``optimal_scaling``.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014. The context is the score of each sample.

    Args:
        scaling: one scaling per ``"parameter"``, with a context of the shape of the signal; or per ``"factor"`` of the
            variational distribution, with a context of one more dimension.
        estimate: ``"leave_one_out"``; or ``"same_samples"``, as in the first version of the paper, with a bias of order
            ``1 / samples``.
        num_extra_samples: number of additional samples, from which only the scaling is estimated; 100 in the published
            paper. The caller draws them, and passes the scaling as the context. 0: use the samples themselves.
        dim: dimension of the samples, at least 2 for ``"leave_one_out"``.

    Example:
        >>> scaling = ControlVariate()
        >>> scaling(torch.tensor([1.0, 3.0, 8.0]), context=torch.tensor([-1.0, 1.0, 2.0])).value
        tensor([7.0000, 6.6000, 2.0000])
    """

    compares_samples = True
    context_depends_on_sample = True

    def __init__(
        self,
        scaling: Scaling = "parameter",
        estimate: Estimate = "leave_one_out",
        num_extra_samples: int = 0,
        dim: int = 0,
    ):
        super().__init__()
        if scaling not in ("parameter", "factor"):
            raise ValueError(f"scaling must be 'parameter' or 'factor', got {scaling!r}")
        if estimate not in ("leave_one_out", "same_samples"):
            raise ValueError(f"estimate must be 'leave_one_out' or 'same_samples', got {estimate!r}")
        if num_extra_samples < 0:
            raise ValueError(f"num_extra_samples must be 0 or more, got {num_extra_samples}")
        self.scaling = scaling
        self.estimate = estimate
        self.num_extra_samples = num_extra_samples
        self.dim = dim

    def predict(self, signal: Signal, context: Tensor | None, mask: Mask) -> Float[Tensor, "..."]:
        """Return the scaling."""
        if context is None:
            raise ValueError("ControlVariate needs context=, the score of each sample")
        if self.num_extra_samples:
            return context
        leave_one_out = self.estimate == "leave_one_out"
        if leave_one_out and signal.shape[self.dim] < 2:
            raise ValueError(
                f"leaving one sample out needs at least 2 along dimension {self.dim}, got {signal.shape[self.dim]}"
            )
        return optimal_scaling(context, signal, self.dim, leave_one_out)
