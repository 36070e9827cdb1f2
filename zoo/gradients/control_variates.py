from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.gradients.baselines import Baseline

Scaling = Literal["parameter", "factor"]
Estimate = Literal["leave_one_out", "same_samples"] | int


def optimal_scaling(
    score: Float[Tensor, "..."], signal: Float[Tensor, "*dims"], dim: int = 0, leave_one_out: bool = False
) -> Float[Tensor, "..."]:
    """Scaling of the score as a control variate with which the score-function gradient varies least.

    ``a* = Cov(f s, s) / Var(s)``, equation 8 of Ranganath, Gerrish & Blei, "Black box variational inference", 2014. As
    ``E[s] = 0`` is known, it is estimated by ``Σ f s² / Σ s²``; the paper subtracts sample means.

    Args:
        score: ``s = ∇ log q(z)`` of each sample, ``(*dims)`` for one scaling a parameter. Or ``(*dims, parameters)``
            for one that a factor's parameters share, ``Σ_d Cov(f s_d, s_d) / Σ_d Var(s_d)``, equation 9 of the paper's
            first version, arXiv:1401.0118v1.
        signal: ``f``, in its own units.
        dim: dimension of the samples.
        leave_one_out: estimate each sample's scaling from the others, so that it does not depend on that sample.

    Returns:
        In the signal's units: ``(*dims)``, or with size 1 in the dimension of the samples if all have the same. 0 where
        all scores are.

    Example:
        >>> optimal_scaling(score=torch.tensor([-0.5, 0.5]), signal=torch.tensor([1.0, 3.0]))
        tensor([2.])
    """
    square = score.square()
    if square.ndim > signal.ndim:
        square = square.flatten(signal.ndim).sum(-1)
    total = leave_one_out_sum if leave_one_out else sum_of_all
    information = total(square, dim)
    return total(signal * square, dim) / torch.where(information > 0, information, 1)


def sum_of_all(x: Tensor, dim: int) -> Tensor:
    """Sum over a dimension, which is kept."""
    return x.sum(dim, keepdim=True)


def leave_one_out_sum(x: Tensor, dim: int) -> Tensor:
    """Sum over all other elements of a dimension: those before and those after, so that no large one cancels."""
    zero = torch.zeros_like(x.narrow(dim, 0, 1))
    before = torch.cat([zero, x.cumsum(dim)], dim).narrow(dim, 0, x.shape[dim])
    after = torch.cat([zero, x.flip(dim).cumsum(dim)], dim).narrow(dim, 0, x.shape[dim]).flip(dim)
    return before + after


class ControlVariate(Baseline):
    """The control variate of black-box variational inference: ``f s - a* s``, as a baseline ``a*`` for each parameter.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014. The context is the score of each sample.

    Estimated from the very samples it is used on (``"same_samples"``, as in the paper's first version) it depends on
    them, and biases the gradient by a term that falls as ``1 / samples``. The other estimates leave it unbiased.

    Args:
        scaling: one scaling for each ``"parameter"``, with a context of the signal's shape, or one that the parameters
            of a ``"factor"`` share, with a context of one more dimension.
        estimate: ``"leave_one_out"``: from the other samples; ``"same_samples"``; or from so many separate samples, of
            which whoever draws them makes the scaling, and hands it in as the context. The published paper takes 100.
        dim: dimension of the samples.

    Raises:
        ValueError: an option has no such value; there is no context, or there are fewer than 2 samples to leave one
            out.

    Example:
        >>> scaling = ControlVariate()
        >>> scaling(torch.tensor([1.0, 3.0, 8.0]), context=torch.tensor([-1.0, 1.0, 2.0])).value
        tensor([7.0000, 6.6000, 2.0000])
    """

    compares_samples = True
    context_holds_sample = True

    def __init__(self, scaling: Scaling = "parameter", estimate: Estimate = "leave_one_out", dim: int = 0):
        super().__init__()
        if scaling not in ("parameter", "factor"):
            raise ValueError(f"scaling must be 'parameter' or 'factor', got {scaling!r}")
        if estimate not in ("leave_one_out", "same_samples") and not (isinstance(estimate, int) and estimate > 0):
            raise ValueError(
                f"estimate must be 'leave_one_out', 'same_samples' or a number of separate samples, got {estimate!r}"
            )
        self.scaling = scaling
        self.estimate = estimate
        self.dim = dim

    @property
    def num_extra_samples(self) -> int:
        """How many samples are drawn for the estimate alone."""
        return self.estimate if isinstance(self.estimate, int) else 0

    def predict(self, signal: Tensor, context: Tensor | None, mask: Bool[Tensor, "..."] | None) -> Tensor:
        """Give the scaling."""
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
