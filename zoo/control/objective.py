from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from zoo.control.policies import Policy
from zoo.control.returns import lambda_return
from zoo.control.rollout import Rollout
from zoo.gradients import Learned, Reinforce, ReinforceOutput, score_function_loss


class PolicyGradientObjective(NamedTuple):
    """The loss of one rollout, term by term, and what it was made of."""

    policy: Float[Tensor, ""]
    """Summed over time, mean over environments; its gradient is minus the policy gradient."""
    entropy: Float[Tensor, ""]
    """Of the policy, in nats; summed and averaged alike."""
    value: Float[Tensor, ""]
    """Mean squared error of the baseline; 0 where it does not learn."""
    returns: Float[Tensor, "time envs"]
    """What the baseline is fitted to, and the advantage measured from."""
    estimate: ReinforceOutput


def policy_gradient_objective(
    policy: Policy,
    rollout: Rollout,
    reinforce: Reinforce,
    discount: float,
    trace_decay: float = 1.0,
    normalize: bool = False,
    discount_weighting: bool = False,
) -> PolicyGradientObjective:
    """REINFORCE with the reward to go: ``∇J = E[Σ_t ∇ log π(a_t | s_t) (G_t - b(s_t))]``.

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992.

    Exact, for whole episodes with ``trace_decay=1`` and no normalisation: with ``discount_weighting`` it is the
    gradient of ``E[Σ_t γᵗ r_t]``; without, each step counts as if the episode began there, as nearly everybody has
    it. Biased is whatever a learned value stands for: rewards after a cut, and with ``trace_decay < 1`` all later ones.
    An episode that a time limit cuts goes on, as far as a learned value can tell; without one it ends there.

    Args:
        policy: the one that took the rollout, unchanged since: no other's samples are right.
        rollout: what it did.
        reinforce: with ``maximize=True``; its baseline's context is the observation.
        discount: ``γ``.
        trace_decay: ``λ``; see ``lambda_return``.
        normalize: bring the advantages of the rollout to mean 0 and standard deviation 1. A bias, of the order of one
            over their number.
        discount_weighting: weigh step ``t`` of an episode by ``γᵗ``.
    """
    returns = lambda_return(rollout.reward, discount, following_value(reinforce, rollout), rollout.ended, trace_decay)
    log_prob, entropy = policy.log_prob_and_entropy(rollout.observation, rollout.action)
    out = reinforce(log_prob, returns, context=rollout.observation, mask=rollout.valid)
    loss = out.loss
    if normalize:
        loss = -score_function_loss(log_prob, normalized(out.advantage, rollout.valid), mask=rollout.valid)
    if discount_weighting:
        loss = loss * loss.new_tensor(discount) ** rollout.elapsed
    return PolicyGradientObjective(
        policy=loss.sum(0).mean(),
        entropy=torch.where(rollout.valid, entropy, 0).sum(0).mean(),
        value=out.baseline_loss,
        returns=returns,
        estimate=out,
    )


@torch.no_grad()
def following_value(reinforce: Reinforce, rollout: Rollout) -> Float[Tensor, "time envs"]:
    """``V(s_{t+1})``: 0 where nothing follows, and everywhere if no value is learned."""
    value = learned_value(reinforce)
    if value is None:
        return torch.zeros_like(rollout.reward)
    return torch.where(rollout.terminated, 0, value(rollout.following).squeeze(-1))


def learned_value(reinforce: Reinforce) -> nn.Module | None:
    """Give the network within the baseline that guesses the return of a state, if there is one."""
    return next((part.net for part in reinforce.modules() if isinstance(part, Learned)), None)


def normalized(advantage: Float[Tensor, "time envs"], valid: Bool[Tensor, "time envs"]) -> Float[Tensor, "time envs"]:
    """Bring the valid elements to mean 0 and standard deviation 1; if they are all alike, to 0.

    Over the whole batch, never along one episode: its mean depends on the actions judged by it.

    Example:
        >>> normalized(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]]))
        tensor([[-1.,  1.,  0.]])
    """
    count = valid.sum().clamp(min=1)
    centred = torch.where(valid, advantage - torch.where(valid, advantage, 0).sum() / count, 0)
    std = (centred.square().sum() / count).sqrt()
    return centred / std.clamp(min=1e-3)
