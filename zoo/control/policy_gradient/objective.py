from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from zoo.control.policy import Policy
from zoo.control.policy_gradient._normalization import normalize
from zoo.control.policy_gradient._value_function import ValueFunction, value_function
from zoo.control.returns import lambda_returns
from zoo.control.rollout import Rollout
from zoo.gradients import Reinforce, ReinforceOutput, score_function_loss


class PolicyGradientObjective(NamedTuple):
    """Loss terms of one rollout, and intermediate results; see ``policy_gradient_objective`` for an example.

    Example:
        >>> PolicyGradientObjective._fields[:3]
        ('policy_loss', 'entropy', 'value_loss')
    """

    policy_loss: Float[Tensor, ""]
    """Summed over time, mean over environments; its gradient is minus the policy gradient."""
    entropy: Float[Tensor, ""]
    """Entropy of the policy in nats, summed over time, mean over environments."""
    value_loss: Float[Tensor, ""]
    """Mean squared error of the baseline; 0 if it is not learned."""
    returns: Float[Tensor, "time envs"]
    """λ-returns: the learning signal, and the regression target of the baseline."""
    reinforce_output: ReinforceOutput


def policy_gradient_objective(
    policy: Policy,
    rollout: Rollout,
    reinforce: Reinforce,
    gamma: float,
    gae_lambda: float = 1.0,
    normalize_advantage: bool = False,
    discount_weighting: bool = False,
) -> PolicyGradientObjective:
    """Return the loss of REINFORCE with reward-to-go: ``∇J = E[Σ_t ∇ log π(a_t | s_t) (G_t - b(s_t))]``.

    Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", 1992.

    The estimate of ``∇ E[Σ_t γᵗ r_t]`` is unbiased for complete episodes with ``gae_lambda=1``, ``discount_weighting``
    and no normalization. Without ``discount_weighting``, as is common practice, each step counts as if the episode
    started there. A learned value biases the estimate where it replaces rewards: after a truncation, and everywhere
    with ``gae_lambda < 1``. Without a learned value a truncated episode counts as terminated.

    Args:
        policy: policy that collected the rollout, unchanged since.
        rollout: rollout of the policy.
        reinforce: estimator with ``maximize=True``, whose baseline depends on the observation.
        gamma: discount factor ``γ``.
        gae_lambda: ``λ``; see ``lambda_returns``. Without a learned value, 1 is used instead.
        normalize_advantage: divide the advantages of the rollout by their root mean square, after subtracting their
            mean if a value is learned. The bias is of the order of one over their number.
        discount_weighting: weight step ``t`` of an episode by ``γᵗ``.

    Example:
        >>> from zoo.control import RolloutDataset, VectorEnvAdapter, make_policy, make_vector_env
        >>> policy, envs = make_policy((4,), 2, hidden=(8,)), VectorEnvAdapter(make_vector_env("CartPole-v1", 2))
        >>> rollout = next(iter(RolloutDataset(envs, policy, n_steps=4, num_rollouts=1, seed=0))).rollout
        >>> objective = policy_gradient_objective(policy, rollout, Reinforce(maximize=True), gamma=0.98)
        >>> objective.policy_loss.shape, objective.returns.shape
        (torch.Size([]), torch.Size([4, 2]))
    """
    value = value_function(reinforce)
    if value is None:
        gae_lambda = 1.0  # without bootstrapping a smaller one would only discount more
    returns = lambda_returns(rollout.reward, gamma, _next_value(value, rollout), rollout.done, gae_lambda)
    log_prob, entropy = policy.log_prob_and_entropy(rollout.observation, rollout.action)
    output = reinforce(log_prob, returns, context=rollout.observation, mask=rollout.mask)
    loss = output.loss
    if normalize_advantage:
        advantage = normalize(output.advantage, rollout.mask, center=value is not None)
        loss = -score_function_loss(log_prob, advantage, mask=rollout.mask)
    if discount_weighting:
        loss = loss * loss.new_tensor(gamma) ** rollout.step_count
    return PolicyGradientObjective(
        policy_loss=loss.sum(0).mean(),
        entropy=torch.where(rollout.mask, entropy, 0).sum(0).mean(),
        value_loss=output.baseline_loss,
        returns=returns,
        reinforce_output=output,
    )


@torch.no_grad()
def _next_value(value: ValueFunction | None, rollout: Rollout) -> Float[Tensor, "time envs"]:
    if value is None:
        return torch.zeros_like(rollout.reward)
    return torch.where(rollout.terminated, 0, value(rollout.next_observation))
