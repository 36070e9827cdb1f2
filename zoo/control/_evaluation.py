import itertools
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from zoo._stats import student_t_half_width
from zoo.control._acting import NOISE_CHUNK_SIZE, make_act_fn
from zoo.control.envs._wrappers import EnvError
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.planning import (
    greedy_policy,
    optimal_mean_return,
    policy_evaluation,
    reachable_states,
    start_value,
    value_iteration,
)
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy import Policy

TOLERANCE = 1e-3  # in units of reward
_TIME_BUDGET = 3600.0  # seconds after which an evaluation is aborted
_WARN_AFTER = 60.0  # seconds


class ReturnEstimate(NamedTuple):
    """Mean undiscounted return of complete episodes, with a 95 % interval.

    Example:
        >>> ReturnEstimate(mean=480.0, low=470.0, high=490.0).mean
        480.0
    """

    mean: float
    low: float
    """Lower end of the Student-t interval of the mean, within the bounds of a return."""
    high: float


class Evaluation(NamedTuple):
    """Returns of a frozen policy.

    Example:
        >>> Evaluation._fields
        ('stochastic', 'greedy')
    """

    stochastic: ReturnEstimate
    """Actions are sampled, as in training."""
    greedy: ReturnEstimate
    """The most likely action is taken."""


def evaluate_policy(policy: Policy, envs: VectorEnvAdapter, seed: int, time_budget: float = _TIME_BUDGET) -> Evaluation:
    """Return the mean return of a policy over the first episode of each environment, sampled and greedy.

    The first half of the environments samples actions, the second half is greedy. Only the first episode of each
    environment counts, as the first episodes to end would be the short ones. Policy and global random state are not
    changed.

    Raises:
        ValueError: there are fewer than four environments, or an odd number.
        EnvError: an environment raised an error, returned values that are not finite, or did not end its episode
            within ``time_budget`` seconds.

    Example:
        >>> from zoo.control.envs import make_vector_env
        >>> from zoo.control.policy_gradient import make_policy
        >>> envs = VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs=20))
        >>> evaluate_policy(make_policy((4,), 2, hidden=(8,)), envs, seed=0).stochastic.mean < 100
        True
    """
    _check_num_envs(envs)
    stochastic, greedy = np.split(episode_returns(policy, envs, seed, time_budget), 2)
    return Evaluation(estimate_return(stochastic), estimate_return(greedy))


def _check_num_envs(envs: VectorEnvAdapter) -> None:
    if len(envs) < 4 or len(envs) % 2:
        raise ValueError(
            f"an evaluation needs an even number of environments, at least 4, got {len(envs)}: half of them sample "
            "actions, the other half act greedily, and an interval needs at least 2 episodes of each"
        )


@torch.inference_mode()
def episode_returns(
    policy: Policy, envs: VectorEnvAdapter, seed: int, time_budget: float = _TIME_BUDGET
) -> Float[np.ndarray, " envs"]:
    """Return the undiscounted return of one episode in each environment; the second half acts greedily."""
    started, warned = time.monotonic(), False
    generator = torch.Generator(next(policy.parameters()).device).manual_seed(seed)
    envs.reset(seed)
    act, num_sampled = make_act_fn(policy), len(envs) // 2
    returns, running = np.zeros(len(envs)), np.ones(len(envs), dtype=bool)
    _check_finite(envs.observation, running, f"{envs.name} returned an observation", "at the beginning")
    for t in itertools.count():
        if t % NOISE_CHUNK_SIZE == 0:
            noise = policy.noise(NOISE_CHUNK_SIZE, len(envs), generator=generator)
            noise[:, num_sampled:] = 0
        step = envs.step(act(envs.observation, noise[t % NOISE_CHUNK_SIZE]))
        _check_finite(step.next_observation, running, f"{envs.name} returned an observation", f"after step {t}")
        _check_finite(step.reward, running, f"{envs.name} returned a reward", f"in step {t}")
        returns += np.where(running, step.reward, 0)
        running &= ~step.done
        if not running.any():
            break
        if (seconds := time.monotonic() - started) > (time_budget if warned else min(_WARN_AFTER, time_budget)):
            progress = (
                f"{running.sum()} of {len(running)} episodes of an evaluation in {envs.name} have not ended after "
                f"{t + 1:,} steps each and {seconds:,.0f} seconds"
            )
            if seconds > time_budget:
                raise EnvError(
                    f"{progress}, and it was aborted: limit episodes by env_kwargs.max_episode_steps=..., or reduce "
                    "model.n_eval_episodes"
                )
            warnings.warn(f"{progress}; it is aborted after {time_budget:,.0f} seconds", stacklevel=2)
            warned = True
    return returns


def _check_finite(
    values: Shaped[np.ndarray, " envs ..."], running: Bool[np.ndarray, " envs"], what: str, when: str
) -> None:
    if values.dtype.kind != "f":
        return
    broken = running & ~np.isfinite(values).reshape(len(values), -1).all(-1)
    if broken.any():
        raise EnvError(
            f"{what} that is not finite {when} of an episode, in environment {broken.argmax()} of an evaluation"
        )


def estimate_return(returns: Float[np.ndarray, " episodes"]) -> ReturnEstimate:
    """Return the mean of returns with its 95 % interval, clipped to the bounds of the returns.

    The smallest or largest return is taken for a bound if several episodes have it, as under a time limit.
    """
    mean = float(returns.mean())
    half_width = student_t_half_width(returns.std(ddof=1), len(returns))
    low, high = mean - half_width, mean + half_width
    smallest, largest = float(returns.min()), float(returns.max())
    if (returns == smallest).sum() > 1:
        low = max(low, smallest)
    if (returns == largest).sum() > 1:
        high = min(high, largest)
    return ReturnEstimate(mean, low, high)


class PolicyEvaluator(ABC):
    """Base class for evaluators. An evaluator is passed to Lightning as validation data, with itself as only batch."""

    monitor: str
    """Name of the metric by which checkpoints are compared."""
    reward_threshold: float | None
    """Value of that metric at which the task counts as solved; None if there is none."""
    optimum: float | None
    """Value of that metric under the optimal policy; None if it is unknown."""

    @abstractmethod
    def evaluate(self, policy: Any, seed: int) -> dict[str, float]:
        """Return metrics of a policy, which is not changed."""

    def __iter__(self) -> Iterator["PolicyEvaluator"]:
        yield self

    def __len__(self) -> int:
        return 1


class ExactEvaluator(PolicyEvaluator):
    """Evaluates the greedy policy of a table by solving for its discounted value without a time limit.

    A policy whose value is within ``TOLERANCE`` of the optimum solves the task.
    """

    monitor = "start_value"

    def __init__(self, mdp: FiniteMDP):
        self.mdp = mdp
        self.optimal = value_iteration(mdp)
        self.reachable = reachable_states(mdp)
        self.optimum: float = float(start_value(mdp, self.optimal.amax(-1)))
        self.reward_threshold = self.optimum - TOLERANCE

    def evaluate(self, policy: Any, seed: int) -> dict[str, float]:
        """Return ``V^π(s_0)`` of the greedy policy, its distance from ``V*(s_0)``, and ``max |Q - Q*|``."""
        action_values = policy.q.values.detach().to("cpu", self.optimal.dtype)
        value = float(start_value(self.mdp, policy_evaluation(self.mdp, greedy_policy(action_values))))
        return {
            "start_value": value,
            "start_value_gap": self.optimum - value,
            "q_distance": float((action_values - self.optimal)[self.reachable].abs().max()),
        }


class EpisodeEvaluator(PolicyEvaluator):
    """Evaluates a policy by complete episodes, sampled and greedy, in environments of its own."""

    def __init__(self, envs: VectorEnvAdapter, monitor: Literal["eval_return_mean", "greedy_return_mean"]):
        _check_num_envs(envs)
        self.envs, self.monitor, self.reward_threshold = envs, monitor, envs.reward_threshold
        sub_envs = getattr(envs.vector_env, "envs", [])
        self.optimum = optimal_mean_return(sub_envs[0]) if sub_envs and self.reward_threshold is not None else None

    def evaluate(self, policy: Policy, seed: int) -> dict[str, float]:
        """Return undiscounted mean returns with the 95 % intervals for new episodes.

        The metrics ``eval_return_*`` are those of sampled actions, ``greedy_return_*`` those of greedy actions.
        """
        stochastic, greedy = evaluate_policy(policy, self.envs, seed)
        return {
            f"{kind}_return_{name}": value
            for kind, returns in (("eval", stochastic), ("greedy", greedy))
            for name, value in returns._asdict().items()
        }
