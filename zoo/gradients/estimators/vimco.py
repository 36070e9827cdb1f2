import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.gradients.baselines import Baseline
from zoo.gradients.estimators.estimator import (
    Evaluation,
    GradientEstimate,
    GradientEstimator,
    LatentModel,
    bernoulli_sampler,
    sum_terms,
)
from zoo.gradients.reinforce import Reinforce


def iwae_bound(log_weights: Float[Tensor, "..."], dim: int = 0) -> Float[Tensor, "..."]:
    """Return the importance-weighted bound on the log-evidence, ``log 1/K Σ_k w_k``, in nats.

    ``w_k = p(x, h_k) / q(h_k | x)``. The expectation is the ELBO for ``K = 1`` and tightens with ``K``. Burda, Grosse &
    Salakhutdinov, "Importance weighted autoencoders", 2016.

    Args:
        log_weights: ``log w_k``, in nats.
        dim: dimension of the samples.

    Example:
        >>> iwae_bound(torch.log(torch.tensor([1.0, 3.0])))
        tensor(0.6931)
    """
    return log_weights.logsumexp(dim) - math.log(log_weights.shape[dim])


def leave_one_out_bounds(log_weights: Float[Tensor, "*dims"], dim: int = 0) -> Float[Tensor, "*dims"]:
    """Return, for each sample, the bound with its weight replaced by the geometric mean of the others.

    ``L_{-k} = log 1/K (exp(1/(K-1) Σ_{j≠k} log w_j) + Σ_{j≠k} w_j)``, equation 10 of Mnih & Rezende, "Variational
    inference for Monte Carlo objectives", 2016.

    Args:
        log_weights: ``log w_k``, in nats.
        dim: dimension of the samples.

    Raises:
        ValueError: there are fewer than 2 samples.

    Example:
        >>> leave_one_out_bounds(torch.tensor([0.0, 5.0]))
        tensor([5., 0.])
    """
    samples = log_weights.shape[dim]
    if samples < 2:
        raise ValueError(f"leaving one sample out needs at least 2 samples along dimension {dim}, got {samples}")
    log_weights = log_weights.movedim(dim, 0)
    mean_of_others = (log_weights.sum(0) - log_weights) / (samples - 1)
    own = torch.eye(samples, dtype=torch.bool, device=log_weights.device)
    own = own.reshape(samples, samples, *[1] * (log_weights.ndim - 1))
    replaced = torch.where(own, mean_of_others.unsqueeze(1), log_weights.unsqueeze(0))
    return iwae_bound(replaced, dim=1).movedim(0, dim)


class VIMCOBaseline(Baseline):
    """Baseline of the importance-weighted bound: ``leave_one_out_bounds``.

    Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016. The signal is the bound, the same for all
    samples of an input; the context is ``log w_k``, in the shape of the signal.

    Args:
        dim: dimension of ``log_prob`` that holds the samples.

    Raises:
        ValueError: the context is missing, or there are fewer than 2 samples.

    Example:
        >>> log_weights = torch.tensor([0.0, 5.0])
        >>> bound = iwae_bound(log_weights)
        >>> VIMCOBaseline(dim=0)(bound.expand(2), context=log_weights).value
        tensor([5., 0.])
    """

    compares_samples = True
    context_depends_on_sample = True

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def predict(
        self, signal: Float[Tensor, "*dims"], context: Tensor | None, mask: Bool[Tensor, "*dims"] | None
    ) -> Float[Tensor, "*dims"]:
        """Return, for each sample, the bound that does not depend on it."""
        if context is None or context.shape != signal.shape:
            raise ValueError("VIMCOBaseline needs context=, the log-weight of each sample")
        return leave_one_out_bounds(context, self.dim)


def iwae_objective(sampled: Evaluation, reinforce: nn.Module) -> GradientEstimate:
    """Return the losses of the negative importance-weighted bound ``-E_q[log 1/K Σ_k p(x, h_k) / q(h_k | x)]``.

    The pathwise term trains model and inference network, since the weights depend on ``q``. The learning signal of each
    sample is the whole bound. Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016.

    Args:
        sampled: log-probabilities of samples of the inference network.
        reinforce: a ``Reinforce(maximize=True)``; the context is the log-weight of each sample.

    Example:
        >>> log_q, log_p = torch.full((5, 3), -1.0, requires_grad=True), torch.full((5, 3), -2.0)
        >>> iwae_objective(Evaluation([], [log_q], [log_p, log_p]), Reinforce(maximize=True)).bound
        tensor([-3., -3., -3.])
    """
    log_q = sum_terms(sampled.log_q)
    log_weights = sum_terms(sampled.log_joint) - log_q
    bound = iwae_bound(log_weights, dim=0)
    out = reinforce(log_q, bound.detach(), context=log_weights)
    return GradientEstimate(-bound.mean(), out.loss.sum(0).mean(), out.baseline_loss, bound.detach(), [out])


class VIMCO(GradientEstimator):
    """Gradient of the importance-weighted bound by REINFORCE with ``VIMCOBaseline``.

    Mnih & Rezende, "Variational inference for Monte Carlo objectives", 2016.

    Raises:
        ValueError: ``baseline`` or ``scale`` is set; the other options have no effect.

    Example:
        >>> VIMCO().min_particles
        2
    """

    needs = "log_weights"
    bound = "iwae"
    min_particles = 2

    def __init__(
        self,
        units: Sequence[int] = (),
        make_net: Callable[[int], nn.Module] | None = None,
        *,
        baseline: str | None = None,
        scale: bool = False,
        **options: object,
    ):
        super().__init__()
        if baseline is not None:
            raise ValueError("estimator=vimco has a baseline of its own; remove estimator.baseline")
        if scale:
            raise ValueError(
                "estimator=vimco cannot be scaled: the inference network has both a pathwise and a score-function "
                "gradient, and scaling only one of them would move the optimum; remove estimator.scale"
            )
        self.reinforce = Reinforce(VIMCOBaseline(dim=0), maximize=True)

    def forward(self, model: LatentModel, num_particles: int) -> GradientEstimate:
        """Return the losses of the negative importance-weighted bound."""
        return iwae_objective(model.evaluate(bernoulli_sampler(model.noise(num_particles))), self.reinforce)
