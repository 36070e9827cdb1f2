from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Normal

from zoo.attention.ram.network import Trajectory
from zoo.gradients import Reinforce, ReinforceOutput


class HybridObjective(NamedTuple):
    """Loss terms of RAM, with the reward and the output of ``Reinforce``; see ``hybrid_objective`` for an example.

    Example:
        >>> HybridObjective._fields[:4]
        ('cross_entropy', 'policy_loss', 'baseline_loss', 'probe_loss')
    """

    cross_entropy: Float[Tensor, ""]
    """``-log p(y | h_T)`` in nats: trains classifier, core and glimpse network by backpropagation."""
    policy_loss: Float[Tensor, ""]
    """Surrogate of the expected reward, summed over the steps: trains the location network by REINFORCE."""
    baseline_loss: Float[Tensor, ""]
    """Mean squared error of the baseline: trains the baseline only."""
    probe_loss: Float[Tensor, ""]
    """Mean of ``-log p(y | h_t)`` over the glimpses before the last, in nats: trains the probe only."""
    reward: Float[Tensor, "samples images"]
    """1 where the predicted class is correct, else 0."""
    reinforce: ReinforceOutput

    def metrics(self, trajectory: Trajectory) -> dict[str, Tensor]:
        """Return the metrics logged during training; those of the policy are missing where no location was sampled."""
        advantage, baseline = self.reinforce.advantage, self.reinforce.baseline
        reward = self.reward.expand_as(baseline)
        metrics = {"train_error": 1 - self.reward.mean(), "cross_entropy": self.cross_entropy}
        if not baseline.numel():
            return metrics
        variance = reward.var(correction=0)
        explained = 1 - (reward - baseline).var(correction=0) / variance
        return (
            metrics
            | {
                "policy_loss": self.policy_loss,
                "baseline_loss": self.baseline_loss,
                "reward_variance": self.reward.var(correction=0),
                "advantage_mean": advantage.mean(),
                "advantage_variance": advantage.var(correction=0),
                "baseline_r2": torch.where(variance > 0, explained, 0.0),  # 0 if all rewards are equal
                "clipped_locations": (trajectory.locations[1:].abs() > 1).any(-1).float().mean(),
            }
        )


def hybrid_objective(
    logits: Float[Tensor, "glimpses samples images classes"],
    labels: Int[Tensor, " images"],
    trajectory: Trajectory,
    std: float,
    reinforce: Reinforce,
) -> HybridObjective:
    """Return the loss terms of RAM: REINFORCE trains the location policy, backpropagation everything else.

    ``L = -log p(y | h_T) - Σ_{t<T} log N(l_{t+1}; μ(h_t), σ²) (R - b(h_t)) + 1/(T-1) Σ_{t<T} (b(h_t) - R)²``, with
    ``R = 1`` if the most likely class is correct, else 0. Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of
    visual attention", 2014.

    The sums are over the locations 2 to T: the distribution of the first does not depend on the parameters, and none is
    sampled after the last glimpse. The density is that of the raw sample, before the sensor clips it.

    Args:
        logits: return value of ``RecurrentAttentionNetwork.logits``.
        labels: true classes.
        trajectory: trajectory from which ``logits`` were computed.
        std: ``σ``, with which its locations were sampled.
        reinforce: estimator that maximizes. Its signals have the dimensions (step, sample, image), its context is the
            state ``h_t`` in which a location is sampled.

    Example:
        >>> states, locations = torch.zeros(3, 1, 4, 8), torch.zeros(3, 1, 4, 2)
        >>> trajectory = Trajectory(states, locations, means=locations[1:])
        >>> logits, labels = torch.eye(4)[:, :2].expand(3, 1, 4, 2), torch.tensor([0, 1, 1, 1])
        >>> hybrid_objective(logits, labels, trajectory, 0.1, Reinforce(maximize=True)).reward
        tensor([[1., 1., 0., 0.]])
    """
    truth = labels.expand(logits.shape[:-1])
    last, last_truth = logits[-1].flatten(0, -2), truth[-1].flatten()
    reward = (logits[-1].argmax(-1) == truth[-1]).to(logits.dtype)
    steps = len(trajectory.means)
    log_prob = _location_log_prob(trajectory.means, trajectory.locations[len(trajectory.locations) - steps :], std)
    out = reinforce(log_prob, reward, context=trajectory.states[:steps])
    return HybridObjective(
        cross_entropy=F.cross_entropy(last, last_truth),
        probe_loss=F.cross_entropy(logits[:-1].flatten(0, -2), truth[:-1].flatten(), reduction="sum")
        / max(1, truth[:-1].numel()),
        policy_loss=out.loss.sum(0).mean(),
        baseline_loss=out.baseline_loss,
        reward=reward,
        reinforce=out,
    )


def _location_log_prob(
    means: Float[Tensor, "*dims 2"], locations: Float[Tensor, "*dims 2"], std: float
) -> Float[Tensor, "*dims"]:
    """Return the log-density of raw locations: ``log N(l; μ, σ² I)``, in nats."""
    return Normal(means, std, validate_args=False).log_prob(locations).sum(-1)
