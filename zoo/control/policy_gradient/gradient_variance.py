from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.control.envs.vector_env import LONGEST_EPISODE, Environments
from zoo.control.networks import Standardize
from zoo.control.policy_gradient.objective import policy_gradient_objective
from zoo.control.policy_gradient.policies import Policy
from zoo.control.returns import lambda_return
from zoo.control.rollout import Rollout, collect
from zoo.gradients import Baseline, Constant, Learned, LeaveOneOut, MovingAverage, Reinforce
from zoo.gradients.spread import gradients_of
from zoo.stats import Estimate, log_jackknife_interval


class Estimator(NamedTuple):
    """A way to estimate the policy gradient from one rollout."""

    reinforce: Reinforce
    gae_lambda: float = 1.0
    """``λ``; see ``lambda_return``."""


class GradientVariance(NamedTuple):
    """How much an estimate of the gradient varies from one rollout to the next."""

    total: Estimate
    """``Σ Var[g_i]`` over all parameters of the policy: the trace of the covariance."""
    reduction: Estimate
    """The first estimator's, in units of this."""


def variance_table(
    policy: Policy, environments: Environments, estimators: Mapping[str, Estimator], draws: int, gamma: float
) -> dict[str, GradientVariance]:
    """Variance of the policy gradient at one policy, by each of several estimators of it.

    All judge the same rollouts, so that their ratios are known better than the variances. A rollout is one episode of
    each environment, and its gradient their mean.

    Args:
        policy: left as it is; draws from the global random state.
        environments: to act in; seed them before.
        estimators: by name; see ``usual_estimators``. All others are compared with the first.
        draws: number of rollouts.
        gamma: ``γ``.

    Raises:
        ValueError: there are fewer than 3 draws.

    Example:
        >>> from zoo.control.envs.vector_env import make_environments
        >>> from zoo.control.policy_gradient.policies import make_policy
        >>> environments = Environments(make_environments("CartPole-v1", count=16))
        >>> environments.reset(seed=0)
        >>> _ = torch.manual_seed(0)
        >>> rivals = {"none": Estimator(Reinforce()), "others": Estimator(Reinforce(LeaveOneOut(1)))}
        >>> table = variance_table(make_policy((4,), 2, hidden=[8]), environments, rivals, draws=10, gamma=0.98)
        >>> table["others"].reduction.value > 1
        True
    """
    if draws < 3:
        raise ValueError(f"the interval of a variance needs at least 3 draws, got {draws}")
    parameters = list(policy.parameters())
    found = torch.stack(
        [
            gradients_of(losses(policy, rollout, estimators.values(), gamma), parameters)
            for rollout in whole_episodes(policy, environments, draws)
        ]
    )
    variance, without = (x.log() for x in variance_and_jackknife(found.double()))
    return {
        name: GradientVariance(
            total=log_jackknife_interval(variance[i], without[:, i]),
            reduction=log_jackknife_interval(variance[0] - variance[i], without[:, 0] - without[:, i]),
        )
        for i, name in enumerate(estimators)
    }


def usual_estimators(
    rollouts: Sequence[Rollout], value: nn.Module, gamma: float, gae_lambda: float = 0.9
) -> dict[str, Estimator]:
    """REINFORCE with each baseline, and with the λ-return, the only one that is biased.

    Args:
        rollouts: of the same policy, but none that is judged later: the baselines learn from them.
        value: guess of a state's return; see ``fit_value``.
        gamma: ``γ``.
        gae_lambda: ``λ`` of the λ-return.
    """
    _, returns = states_and_returns(rollouts, gamma)
    average = MovingAverage()
    average(returns)
    baselines = {
        "none": Baseline(),
        "constant": Constant(returns.mean().item()),
        "moving average": average,
        "leave-one-out": LeaveOneOut(dim=1),
        "V(s)": Learned(value),
    }
    estimators = {name: Estimator(Reinforce(baseline, maximize=True)) for name, baseline in baselines.items()}
    return estimators | {f"V(s), λ = {gae_lambda:g}": Estimator(Reinforce(Learned(value), maximize=True), gae_lambda)}


def fit_value(value: nn.Module, rollouts: Sequence[Rollout], gamma: float, steps: int = 500, lr: float = 1e-2) -> None:
    """Fit a network to the returns that followed each state, by least squares (Adam, all states at once)."""
    states, returns = states_and_returns(rollouts, gamma)
    for part in value.modules():
        if isinstance(part, Standardize):
            part.update(states)
    optimizer = torch.optim.Adam(value.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (value(states).squeeze(-1) - returns).square().mean().backward()
        optimizer.step()
        schedule.step()


def whole_episodes(policy: Policy, environments: Environments, count: int) -> Iterator[Rollout]:
    """Play so many rollouts, each one episode of each environment.

    A cut counts as a termination. Else those estimators that know a value would be of another gradient than the others.
    """
    for _ in range(count):
        environments.reset()
        elapsed = np.zeros(len(environments), np.int64)
        rollout = collect(environments, policy, LONGEST_EPISODE, elapsed, whole=True)
        yield rollout._replace(terminated=rollout.ended)


def losses(
    policy: Policy, rollout: Rollout, estimators: Iterable[Estimator], gamma: float, discount_weighting: bool = False
) -> Float[Tensor, " estimators"]:
    """Loss of a rollout by each estimator, whose gradient is minus the policy gradient."""
    options = {"normalize_advantage": False, "discount_weighting": discount_weighting}
    return torch.stack(
        [
            policy_gradient_objective(policy, rollout, reinforce, gamma, gae_lambda, **options).policy
            for reinforce, gae_lambda in estimators
        ]
    )


def states_and_returns(
    rollouts: Sequence[Rollout], gamma: float
) -> tuple[Float[Tensor, "steps ..."], Float[Tensor, " steps"]]:
    """List the states of whole episodes, and the discounted sum of the rewards from each on."""
    states = torch.cat([rollout.observation[rollout.valid] for rollout in rollouts])
    returns = [
        lambda_return(rollout.reward, gamma, torch.zeros_like(rollout.reward), rollout.ended, gae_lambda=1.0)
        for rollout in rollouts
    ]
    return states, torch.cat([x[rollout.valid] for x, rollout in zip(returns, rollouts, strict=True)])


def variance_and_jackknife(
    gradients: Float[Tensor, "draws estimators size"],
) -> tuple[Float[Tensor, " estimators"], Float[Tensor, "draws estimators"]]:
    """Total variance of each estimator's gradients, and what it would be without each of the draws.

    Example:
        >>> variance, without = variance_and_jackknife(torch.tensor([1.0, 2.0, 6.0])[:, None, None])
        >>> variance, without.squeeze(1)
        (tensor([7.]), tensor([ 8.0000, 12.5000,  0.5000]))
    """
    draws = len(gradients)
    squares = (gradients - gradients.mean(0)).square().sum(-1)
    total = squares.sum(0)
    return total / (draws - 1), (total - squares * draws / (draws - 1)) / (draws - 2)
