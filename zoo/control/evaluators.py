"""How good a policy is: solved for where the dynamics are known, else played out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

from zoo.control.envs.dynamics import best_mean_return
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.planning import greedy_policy, policy_evaluation, reachable, start_value, value_iteration
from zoo.control.envs.vector_env import Environments
from zoo.control.evaluation import Evaluator
from zoo.control.policy_gradient.policies import Policy
from zoo.control.q_learning.exploration import ExploringPolicy

NEARLY = 1e-3  # in units of reward: a policy whose value lies no further below the best one's solves its task


class Score(ABC):
    """A way to measure policies; it stands in for the validation data, of which it is the only batch."""

    name: str
    """Of the figure that decides."""
    reward_threshold: float | None
    """Where that figure counts as solved; None if it is not said."""
    best: float | None
    """What the best policy would reach on average; None if it is not known."""

    @abstractmethod
    def measure(self, policy: Any, seed: int) -> dict[str, float]:
        """Give figures by plain names; the policy is left as it was."""

    def __iter__(self) -> Iterator["Score"]:
        yield self

    def __len__(self) -> int:
        return 1


class ExactScore(Score):
    """Solves for the value of the greedy policy of a table: no episode is played, and no chance is left.

    Values are discounted and of endless episodes; a policy whose value is within ``NEARLY`` of ``V*`` solves the task.

    Args:
        mdp: the process that the table is of.

    Example:
        >>> import gymnasium
        >>> from zoo.control.q_learning.q_functions import QTable
        >>> score = ExactScore(FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99))
        >>> untrained = ExploringPolicy(QTable(16, 4), actions=4, exploration="epsilon_greedy", strength=0.0)
        >>> {name: round(value, 3) for name, value in score.measure(untrained, seed=0).items()}
        {'start_value': 0.012, 'start_value_gap': 0.53, 'q_distance': 0.863}
    """

    name = "start_value"

    def __init__(self, mdp: FiniteMDP):
        self.mdp = mdp
        self.optimal = value_iteration(mdp)
        self.asked_for = reachable(mdp)
        self.best = self.optimum = float(start_value(mdp, self.optimal.amax(-1)))
        self.reward_threshold = self.optimum - NEARLY

    def measure(self, policy: ExploringPolicy, seed: int) -> dict[str, float]:
        """``V^π(s_0)`` of the greedy policy, how far it lies below ``V*(s_0)``, and ``max |Q - Q*|``."""
        table: Any = policy.q
        action_values = table.values.detach().to("cpu", self.optimal.dtype)
        values = policy_evaluation(self.mdp, greedy_policy(action_values))
        value = float(start_value(self.mdp, values))
        return {
            "start_value": value,
            "start_value_gap": self.optimum - value,
            "q_distance": float((action_values - self.optimal)[self.asked_for].abs().max()),
        }


class PlayedScore(Score):
    """Mean return of whole episodes that the frozen policy plays: sampling its actions, and greedily.

    Args:
        environments: an even number of them, of their own.
        decided_by: ``eval`` for the policy as it is, ``greedy`` for its likeliest actions.
    """

    def __init__(self, environments: Environments, decided_by: Literal["eval", "greedy"]):
        self.evaluator = Evaluator(environments)
        self.best = best_return(environments) if environments.reward_threshold is not None else None
        self.name = f"{decided_by}_return_mean"
        self.reward_threshold = environments.reward_threshold

    def measure(self, policy: Policy, seed: int) -> dict[str, float]:
        """Undiscounted means, with their 95 % intervals for fresh episodes."""
        measured = self.evaluator.measure(policy, seed)
        kinds = {"eval": measured.stochastic, "greedy": measured.greedy}
        return {
            f"{kind}_return_{name}": value
            for kind, returns in kinds.items()
            for name, value in returns._asdict().items()
        }


def best_return(environments: Environments) -> float | None:
    """Mean return of the best policy there can be in an environment that tells its dynamics; None in others.

    Example:
        >>> from zoo.control.envs.vector_env import make_environments
        >>> taxi = Environments(make_environments("Taxi-v4", 1))
        >>> taxi.reward_threshold, round(best_return(taxi), 2)
        (8.0, 7.93)
    """
    copies = getattr(environments.vector, "envs", [])
    return best_mean_return(copies[0]) if copies else None
