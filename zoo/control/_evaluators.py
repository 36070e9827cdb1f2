from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

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
from zoo.control.evaluation import evaluate_policy
from zoo.control.policy import Policy

TOLERANCE = 1e-3  # in units of reward: how far below the optimum a policy's value still solves the task


class PolicyEvaluator(ABC):
    """Base class for evaluators. An evaluator replaces the validation data, of which it is the only batch."""

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
    """Evaluates the greedy policy of a table by solving for its value, without episodes.

    Values are discounted, of infinite episodes. A policy whose value is within ``TOLERANCE`` of ``V*`` solves the task.
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
    """Evaluates a policy by complete episodes, sampled and greedy, in environments that nothing else uses."""

    def __init__(self, envs: VectorEnvAdapter, monitor: Literal["eval_return_mean", "greedy_return_mean"]):
        if len(envs) < 4 or len(envs) % 2:
            raise ValueError(f"an interval needs at least 2 episodes of each policy, got {len(envs) / 2:g}")
        self.envs, self.monitor, self.reward_threshold = envs, monitor, envs.reward_threshold
        copies = getattr(envs.vector_env, "envs", [])
        self.optimum = optimal_mean_return(copies[0]) if copies and self.reward_threshold is not None else None

    def evaluate(self, policy: Policy, seed: int) -> dict[str, float]:
        """Return undiscounted mean returns with the 95 % intervals for new episodes."""
        stochastic, greedy = evaluate_policy(policy, self.envs, seed)
        return {
            f"{kind}_return_{name}": value
            for kind, returns in (("eval", stochastic), ("greedy", greedy))
            for name, value in returns._asdict().items()
        }
