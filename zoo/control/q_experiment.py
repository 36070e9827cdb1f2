from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from zoo.control.environments import Environments, make_environments
from zoo.control.mdp import FiniteMDP
from zoo.control.mdp_environment import MDPVectorEnv
from zoo.control.policies import action_kind
from zoo.control.q_learning import QLearning
from zoo.control.rollout import Rollouts
from zoo.control.scores import ExactScore, PlayedScore, Score
from zoo.control.seeds import REPORT, seed_of
from zoo.training import Loaders


class QLearningExperiment:
    """Training action values in an environment, and what is reported at its end.

    Args:
        name: of the environment.
        acting: where it learns.
        score: how it is measured.
        observation: see ``QLearning``.
        seed: of environments and measurements.
        rollout_steps: steps of each environment between two updates of the policy.
        evaluate_every: environment steps between two measurements; rounded to whole rollouts.
        max_env_steps: after which training ends, at the last measurement before.
        options: of ``QLearning``.

    Raises:
        ValueError: the actions cannot be counted, or there are fewer steps than a measurement comes after.
    """

    monitor_mode = "max"

    def __init__(
        self,
        name: str,
        acting: Environments,
        score: Score,
        observation: int | list[int],
        seed: int,
        rollout_steps: int,
        evaluate_every: int,
        max_env_steps: int,
        **options: Any,
    ):
        self.name, self.score, self.seed, self.monitor = name, score, seed, score.name
        actions = action_kind(acting.action_space)
        if not isinstance(actions, int):
            raise ValueError(f"Q-learning needs actions that can be counted, and those of {name} are {actions}")
        self.module = QLearning(observation, actions, solved_at=score.solved_at, seed=seed, **options)
        rollouts = max(1, round(evaluate_every / (len(acting) * rollout_steps)))
        steps = rollouts * rollout_steps * len(acting)
        if max_env_steps < steps:
            raise ValueError(
                f"max_env_steps must be at least {steps}, where the first measurement is; got {max_env_steps}"
            )
        self.loaders = Loaders(
            train=lambda rank, ranks: Rollouts(acting, self.module.policy, rollout_steps, rollouts, seed, rank),
            validation=lambda rank, ranks: score,
            passes=max_env_steps // steps,
        )

    def callbacks(self) -> list[pl.Callback]:
        """Callbacks of this kind of model alone: none."""
        return []

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure what training ended with, and beside it the best that the measurements on the way found."""
        best = self.evaluate(checkpoint, folder)[self.score.name]
        return {**self.evaluate(checkpoint.with_name("last.ckpt"), folder), f"best_{self.score.name}": best}

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure a checkpoint."""
        module = QLearning.load(checkpoint)
        figures = self.score.measure(module.policy, seed_of(self.seed, REPORT))
        figures["env_steps"] = float(module.env_steps)
        if module.solved_after >= 0:
            figures["env_steps_to_solved"] = float(module.solved_after)
        return figures

    def solved(self, figures: Mapping[str, float]) -> str:
        """Say in words when the task was first solved, if it was."""
        if "env_steps_to_solved" not in figures:
            return ""
        return f"; solved ({self.score.solved_at:g}) after {figures['env_steps_to_solved']:,.0f} steps"


class TabularQLearningExperiment(QLearningExperiment):
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
        ValueError: there is no such environment, or it does not expose its dynamics.
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
        mdp = FiniteMDP.from_gymnasium(copies[0], gamma)
        super().__init__(
            env,
            Environments(MDPVectorEnv(mdp, environments)),
            ExactScore(mdp),
            mdp.states,
            seed,
            rollout_steps,
            evaluate_every,
            max_env_steps,
            batch_size=batch_size,
            gamma=gamma,
            **options,
        )

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words how near to the optimum it came."""
        gamma, optimum = self.module.hparams["gamma"], figures["start_value"] + figures["start_value_gap"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the greedy policy is worth "
            f"{figures['start_value']:.6f} at the start, and the best one {optimum:.6f} (exact, gamma {gamma:g})\n"
            f"  max |Q - Q*| = {figures['q_distance']:.4f} over the states that can be reached{self.solved(figures)}"
        )


class DeepQLearningExperiment(QLearningExperiment):
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
        options: of ``QLearning``.

    Raises:
        ValueError: there is no such environment, or its actions cannot be counted.
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
        **options: Any,
    ):
        acting = Environments(make_environments(env, environments))
        super().__init__(
            env,
            acting,
            PlayedScore(Environments(make_environments(env, 2 * evaluation_episodes))),
            list(acting.observation_shape),
            seed,
            rollout_steps,
            evaluate_every,
            max_env_steps,
            batch_size=batch_size,
            **options,
        )

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what the policy earns."""
        low, high = figures["greedy_return_low"], figures["greedy_return_high"]
        return (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the greedy policy earns "
            f"{figures['greedy_return']:.1f} an episode (95 % interval {low:.1f} to {high:.1f})\n"
            f"  {figures['exploring_return']:.1f} if it explores as at the end of training{self.solved(figures)}"
        )
