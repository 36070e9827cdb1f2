from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo._stats import Estimate, log_jackknife_interval
from zoo.control._networks import RunningNorm
from zoo.control.envs._registration import MAX_EPISODE_STEPS
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy import Policy
from zoo.control.policy_gradient.objective import policy_gradient_objective
from zoo.control.returns import lambda_returns
from zoo.control.rollout import Rollout, collect_rollout
from zoo.gradients import (
    Baseline,
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    per_sample_gradients,
)


class Estimator(NamedTuple):
    """Estimator of the policy gradient from one rollout."""

    reinforce: Reinforce
    gae_lambda: float = 1.0
    """``λ``; see ``lambda_returns``."""


class GradientVariance(NamedTuple):
    """Variance of an estimator between rollouts."""

    total: Estimate
    """``Σ Var[g_i]`` over all parameters of the policy: the trace of the covariance."""
    reduction: Estimate
    """The first estimator's variance divided by this one's."""


def variance_table(
    policy: Policy, envs: VectorEnvAdapter, estimators: Mapping[str, Estimator], num_samples: int, gamma: float
) -> dict[str, GradientVariance]:
    """Return the variance of the gradient of one policy by each of several estimators.

    All estimators are given the same rollouts, which makes their ratios more precise than the variances. A rollout is
    one episode of each environment, and its gradient their mean.

    Args:
        policy: policy that acts; it is not changed, and its noise comes from the global random state.
        envs: environments, seeded by the caller.
        estimators: estimators by name; see ``default_estimators``. All others are compared with the first.
        num_samples: number of rollouts.
        gamma: discount factor ``γ``.

    Raises:
        ValueError: there are fewer than 3 samples.

    Example:
        >>> from zoo.control.envs import make_vector_env
        >>> from zoo.control.policy_gradient import make_policy
        >>> envs = VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs=16))
        >>> envs.reset(seed=0)
        >>> _ = torch.manual_seed(0)
        >>> estimators = {"none": Estimator(Reinforce()), "loo": Estimator(Reinforce(LeaveOneOutBaseline(1)))}
        >>> table = variance_table(make_policy((4,), 2, hidden=[8]), envs, estimators, num_samples=10, gamma=0.98)
        >>> table["loo"].reduction.value > 1
        True
    """
    if num_samples < 3:
        raise ValueError(f"the interval of a variance needs at least 3 samples, got {num_samples}")
    parameters = list(policy.parameters())
    gradients = torch.stack(
        [
            per_sample_gradients(estimator_losses(policy, rollout, estimators.values(), gamma), parameters)
            for rollout in collect_episodes(policy, envs, num_samples)
        ]
    )
    log_variance, log_jackknife = (x.log() for x in jackknife_variance(gradients.double()))
    return {
        name: GradientVariance(
            total=log_jackknife_interval(log_variance[i], log_jackknife[:, i]),
            reduction=log_jackknife_interval(
                log_variance[0] - log_variance[i], log_jackknife[:, 0] - log_jackknife[:, i]
            ),
        )
        for i, name in enumerate(estimators)
    }


def default_estimators(
    rollouts: Sequence[Rollout], value: nn.Module, gamma: float, gae_lambda: float = 0.9
) -> dict[str, Estimator]:
    """Return REINFORCE with each baseline, and with λ-returns, which alone are biased.

    Args:
        rollouts: rollouts of the same policy, from which the baselines learn; not those whose variance is computed.
        value: state value; see ``fit_value``.
        gamma: discount factor ``γ``.
        gae_lambda: ``λ`` of the λ-returns.
    """
    _, returns = _states_and_returns(rollouts, gamma)
    average = MovingAverageBaseline()
    average(returns)
    baselines = {
        "none": Baseline(),
        "constant": ConstantBaseline(returns.mean().item()),
        "moving average": average,
        "leave-one-out": LeaveOneOutBaseline(dim=1),
        "V(s)": LearnedBaseline(value),
    }
    estimators = {name: Estimator(Reinforce(baseline, maximize=True)) for name, baseline in baselines.items()}
    return estimators | {
        f"V(s), λ = {gae_lambda:g}": Estimator(Reinforce(LearnedBaseline(value), maximize=True), gae_lambda)
    }


def fit_value(
    value: nn.Module, rollouts: Sequence[Rollout], gamma: float, num_updates: int = 500, lr: float = 1e-2
) -> None:
    """Fit a network to the return after each state by least squares (full-batch Adam)."""
    states, returns = _states_and_returns(rollouts, gamma)
    for part in value.modules():
        if isinstance(part, RunningNorm):
            part.update(states)
    optimizer = torch.optim.Adam(value.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=num_updates)
    for _ in range(num_updates):
        optimizer.zero_grad()
        (value(states).squeeze(-1) - returns).square().mean().backward()
        optimizer.step()
        schedule.step()


def collect_episodes(policy: Policy, envs: VectorEnvAdapter, num_rollouts: int) -> Iterator[Rollout]:
    """Yield rollouts, each one complete episode of each environment.

    A truncation counts as a termination. Otherwise estimators with a value would estimate another gradient than those
    without.
    """
    for _ in range(num_rollouts):
        envs.reset()
        step_count = np.zeros(len(envs), np.int64)
        rollout = collect_rollout(envs, policy, MAX_EPISODE_STEPS, step_count, complete_episodes=True)
        yield rollout._replace(terminated=rollout.done)


def estimator_losses(
    policy: Policy, rollout: Rollout, estimators: Iterable[Estimator], gamma: float, discount_weighting: bool = False
) -> Float[Tensor, " estimators"]:
    """Return each estimator's loss of a rollout, whose gradient is minus the policy gradient."""
    options = {"normalize_advantage": False, "discount_weighting": discount_weighting}
    return torch.stack(
        [
            policy_gradient_objective(policy, rollout, reinforce, gamma, gae_lambda, **options).policy_loss
            for reinforce, gae_lambda in estimators
        ]
    )


def _states_and_returns(
    rollouts: Sequence[Rollout], gamma: float
) -> tuple[Float[Tensor, "steps ..."], Float[Tensor, " steps"]]:
    states = torch.cat([rollout.observation[rollout.mask] for rollout in rollouts])
    returns = [
        lambda_returns(rollout.reward, gamma, torch.zeros_like(rollout.reward), rollout.done, gae_lambda=1.0)
        for rollout in rollouts
    ]
    return states, torch.cat([x[rollout.mask] for x, rollout in zip(returns, rollouts, strict=True)])


def jackknife_variance(
    gradients: Float[Tensor, "samples estimators size"],
) -> tuple[Float[Tensor, " estimators"], Float[Tensor, "samples estimators"]]:
    """Return the total variance of each estimator's gradients, and that without each of the samples.

    Example:
        >>> variance, jackknife = jackknife_variance(torch.tensor([1.0, 2.0, 6.0])[:, None, None])
        >>> variance, jackknife.squeeze(1)
        (tensor([7.]), tensor([ 8.0000, 12.5000,  0.5000]))
    """
    n = len(gradients)
    squares = (gradients - gradients.mean(0)).square().sum(-1)
    total = squares.sum(0)
    return total / (n - 1), (total - squares * n / (n - 1)) / (n - 2)
