from collections.abc import Mapping
from typing import Any

from zoo.control.environments import Environments, make_environments, make_evaluation_environments
from zoo.control.experiment import ControlExperiment
from zoo.control.mdp import FiniteMDP
from zoo.control.mdp_environment import MDPVectorEnv
from zoo.control.policies import action_kind
from zoo.control.q_learning import QLearning
from zoo.control.scores import ExactScore, PlayedScore


class TabularQLearningExperiment(ControlExperiment):
    """Q-learning with a table, in an environment that exposes its dynamics: all that is reported is exact.

    Args:
        env: an id of Gymnasium's registry.
        seed: of the environment.
        batch_size: transitions drawn from a replay buffer, if there is one.
        gamma: the discount.
        environments: episodes under way at once.
        rollout_steps: steps of each between two updates of the table.
        evaluate_every: environment steps between two measurements.
        max_env_steps: after which training ends.
        options: of ``QLearning``.

    Raises:
        ValueError: there is no such environment, it does not expose its dynamics, ``gamma`` is not below 1, or nothing
            would be learned before the end.
    """

    def __init__(
        self,
        env: str,
        seed: int,
        batch_size: int,
        gamma: float = 0.99,
        environments: int = 256,
        rollout_steps: int = 4,
        evaluate_every: int = 102_400,
        max_env_steps: int = 500_000,
        **options: Any,
    ):
        copies = getattr(make_environments(env, 1), "envs", [])
        if not copies or not hasattr(copies[0].unwrapped, "P"):
            raise ValueError(f"{env} does not expose its dynamics as P, which a table is measured by; choose model=dqn")
        if gamma == 1:
            raise ValueError(
                "gamma must be below 1 for a table: the greedy policy of one that is being learned may never end an "
                "episode, and with gamma=1 its value is then not determined"
            )
        check_warm_up(options.get("warm_up", 0), evaluate_every, max_env_steps)
        mdp = FiniteMDP.from_gymnasium(copies[0], gamma)
        acting, score = Environments(MDPVectorEnv(mdp, environments)), ExactScore(mdp)
        module = QLearning(
            mdp.states,
            mdp.actions,
            gamma=gamma,
            batch_size=batch_size,
            solved_at=score.solved_at,
            seed=seed,
            **options,
        )
        super().__init__(env, module, acting, score, seed, rollout_steps, evaluate_every, max_env_steps)

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words how near to the optimum it came."""
        gamma, optimum = self.module.hparams["gamma"], figures["start_value"] + figures["start_value_gap"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the greedy policy is worth "
            f"{figures['start_value']:.6f} at the start, and the best one {optimum:.6f} (exact, gamma {gamma:g})\n"
            f"  max |Q - Q*| = {figures['q_distance']:.4f} over the states that can be reached{self.solved(figures)}"
        )


class DeepQLearningExperiment(ControlExperiment):
    """Q-learning with a network, measured by episodes that the frozen policy plays in environments of their own.

    Args:
        env: an id of Gymnasium's registry.
        seed: of the environments.
        batch_size: transitions drawn from the replay buffer for each gradient step.
        environments: episodes under way at once.
        rollout_steps: steps of each between two updates of the policy.
        evaluate_every: environment steps between two measurements.
        evaluation_episodes: episodes that a measurement takes, of the greedy policy and as many of the exploring one.
        max_env_steps: after which training ends.
        lr_decay_steps: environment steps in which the learning rate falls to 0; None for ``max_env_steps``.
        options: of ``QLearning``.

    Raises:
        ValueError: there is no such environment, its actions cannot be counted, or nothing would be learned before the
            end.
    """

    def __init__(
        self,
        env: str,
        seed: int,
        batch_size: int,
        environments: int = 16,
        rollout_steps: int = 16,
        evaluate_every: int = 4096,
        evaluation_episodes: int = 100,
        max_env_steps: int = 500_000,
        lr_decay_steps: int | None = None,
        **options: Any,
    ):
        check_warm_up(options.get("warm_up", 0), evaluate_every, max_env_steps)
        acting = Environments(make_environments(env, environments))
        if not isinstance(actions := action_kind(acting.action_space), int):
            raise ValueError(f"Q-learning needs actions that can be counted, and those of {env} are {actions}")
        score = PlayedScore(
            Environments(make_evaluation_environments(env, 2 * evaluation_episodes)), decided_by="greedy"
        )
        module = QLearning(
            list(acting.observation_shape),
            actions,
            batch_size=batch_size,
            lr_decay_steps=max_env_steps if lr_decay_steps is None else lr_decay_steps,
            solved_at=score.solved_at,
            seed=seed,
            **options,
        )
        super().__init__(env, module, acting, score, seed, rollout_steps, evaluate_every, max_env_steps)

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what the policy earns."""
        low, high = figures["greedy_return_low"], figures["greedy_return_high"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the greedy policy earns "
            f"{figures['greedy_return_mean']:.1f} an episode (95 % interval {low:.1f} to {high:.1f}), "
            f"{figures['eval_return_mean']:.1f} if it explores as at the end of training{self.solved(figures)}"
        )


def check_warm_up(warm_up: int, evaluate_every: int, max_env_steps: int) -> None:
    """Refuse a training that ends before a policy has learned anything and been measured.

    Raises:
        ValueError: it would.
    """
    if warm_up > 0 and max_env_steps < warm_up + evaluate_every:
        raise ValueError(
            f"max_env_steps must be at least {warm_up + evaluate_every}, for nothing is learned in the first {warm_up} "
            f"steps (warm_up) and a measurement comes every {evaluate_every} (evaluate_every); got {max_env_steps}"
        )
