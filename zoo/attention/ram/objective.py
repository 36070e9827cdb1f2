from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Normal

from zoo.attention.ram.network import Rollout
from zoo.gradients import Reinforce, ReinforceOutput


class HybridObjective(NamedTuple):
    """The losses of RAM, and what their parts were, for logging."""

    cross_entropy: Float[Tensor, ""]
    """``-log p(y | h_T)`` in nats: trains classifier, core and glimpse network by backpropagation."""
    policy: Float[Tensor, ""]
    """Surrogate of the expected reward, summed over the moves: trains the locator by REINFORCE."""
    baseline: Float[Tensor, ""]
    """Mean squared error of the baseline, in squared rewards: trains the baseline alone."""
    probe: Float[Tensor, ""]
    """Mean of ``-log p(y | h_t)`` over the glimpses before the last, in nats: trains the probe alone."""
    reward: Float[Tensor, "rollouts images"]
    """1 where the class was right, else 0."""
    reinforce: ReinforceOutput


def hybrid_objective(
    logits: Float[Tensor, "glimpses rollouts images classes"],
    labels: Int[Tensor, " images"],
    rollout: Rollout,
    std: float,
    reinforce: Reinforce,
) -> HybridObjective:
    """Split the credit for the class that was said: the gaze by REINFORCE, all else by backpropagation.

    ``L = -log p(y | h_T) - Σ_{t<T} log N(l_{t+1}; μ(h_t), σ²) (R - b(h_t)) + (b(h_t) - R)²``, with ``R = 1`` if the
    most likely class is right, else 0. Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014.

    Every location with a density was looked at: none is drawn after the last glimpse, and the first is
    uniform whatever the parameters are. The density is that of the raw sample, before the sensor clips it.

    Args:
        logits: of the classes, after each glimpse; see ``RecurrentAttentionNetwork.logits``.
        labels: the true classes.
        rollout: the walk that led to ``logits``.
        std: ``σ``, with which the locations were drawn.
        reinforce: an estimator that maximises; its signals are laid out (time, rollout, image), its context is
            the state ``h_t`` from which a move is made.
    """
    truth = labels.expand(logits.shape[:-1])
    last, last_truth = logits[-1].flatten(0, -2), truth[-1].flatten()
    reward = (logits[-1].argmax(-1) == truth[-1]).to(logits.dtype)
    moves = len(rollout.means)
    log_prob = location_log_prob(rollout.means, rollout.locations[len(rollout.locations) - moves :], std)
    out = reinforce(log_prob, reward, context=rollout.states[:moves])
    return HybridObjective(
        cross_entropy=F.cross_entropy(last, last_truth),
        probe=F.cross_entropy(logits[:-1].flatten(0, -2), truth[:-1].flatten(), reduction="sum")
        / max(1, truth[:-1].numel()),
        policy=out.loss.sum(0).mean(),
        baseline=out.baseline_loss,
        reward=reward,
        reinforce=out,
    )


def location_log_prob(
    means: Float[Tensor, "*dims 2"], locations: Float[Tensor, "*dims 2"], std: float
) -> Float[Tensor, "*dims"]:
    """Log-density of raw locations: ``log N(l; μ, σ² I)``, in nats.

    Example:
        >>> import torch
        >>> location_log_prob(torch.zeros(1, 2), torch.tensor([[0.0, 3.0]]), std=1.0)
        tensor([-6.3379])
    """
    return Normal(means, std, validate_args=False).log_prob(locations).sum(-1)
