import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from zoo.control.environments import Environments, make_environments
from zoo.control.evaluation import Evaluator
from zoo.control.policies import action_kind
from zoo.control.policy_gradient import PolicyGradient
from zoo.control.rollout import Rollouts
from zoo.control.seeds import REPORT, seed_of
from zoo.training import Loaders


class PolicyGradientExperiment:
    """Training a policy in an environment, and what is reported at its end.

    Args:
        env: an id of Gymnasium's registry.
        estimator: options of ``Reinforce``; see ``PolicyGradient``.
        seed: of environments and evaluations.
        environments: how many act at once.
        rollout_steps: steps of each between two updates of the policy.
        whole_episodes: each rollout is one episode of each environment instead, of at most ``rollout_steps``.
        evaluate_every: environment steps between two evaluations; rounded to whole rollouts.
        evaluation_episodes: episodes that an evaluation takes, sampled and as many greedy ones.
        max_env_steps: after which training ends, at the last evaluation before.
        options: of ``PolicyGradient``.

    Raises:
        ValueError: there is no such environment, no policy fits its actions, or there are fewer steps than an
            evaluation comes after.
    """

    monitor, monitor_mode = "eval_return", "max"

    def __init__(
        self,
        env: str,
        estimator: Mapping[str, Any],
        seed: int,
        environments: int = 16,
        rollout_steps: int = 8,
        whole_episodes: bool = False,
        evaluate_every: int = 4096,
        evaluation_episodes: int = 100,
        max_env_steps: int = 500_000,
        **options: Any,
    ):
        self.name, self.seed = env, seed
        acting = Environments(make_environments(env, environments))
        self.solved_at = acting.solved_at
        self.module = PolicyGradient(
            observation_shape=list(acting.observation_shape),
            actions=action_kind(acting.action_space),
            solved_at=acting.solved_at,
            seed=seed,
            estimator=estimator,
            **options,
        )
        rollouts = max(1, round(evaluate_every / (environments * rollout_steps)))
        steps = rollouts * environments * rollout_steps
        if max_env_steps < steps:
            raise ValueError(f"max_env_steps must reach the first evaluation, after {steps} steps; got {max_env_steps}")
        self.evaluator = Evaluator(Environments(make_environments(env, 2 * evaluation_episodes)))
        self.loaders = Loaders(
            train=lambda rank, ranks: Rollouts(
                acting, self.module.policy, rollout_steps, rollouts, seed, rank, whole_episodes
            ),
            validation=lambda rank, ranks: self.evaluator,
            passes=max_env_steps // steps,
        )

    def callbacks(self) -> list[pl.Callback]:
        """Callbacks of this kind of model alone: none."""
        return []

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure what training ended with, and beside it the best that the evaluations on the way found."""
        best = self.evaluate(checkpoint, folder)
        figures = self.evaluate(checkpoint.with_name("last.ckpt"), folder)
        figures["best_eval_return_mean"] = best["eval_return_mean"]
        if self.solved_at is not None:
            figures["solved_of_last_10"] = solved_of_last(10, folder / "metrics.csv", self.monitor, self.solved_at)
        return figures

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure a checkpoint, in episodes that no evaluation saw."""
        module = PolicyGradient.load(checkpoint)
        sampled, greedy = self.evaluator.measure(module.policy, seed_of(self.seed, REPORT))
        figures = {
            "eval_return_mean": sampled.mean,
            "eval_return_low": sampled.low,
            "eval_return_high": sampled.high,
            "greedy_return_mean": greedy.mean,
            "env_steps": float(module.env_steps),
        }
        if module.solved_after >= 0:
            figures["env_steps_to_solved"] = float(module.solved_after)
        if module.training_solved_after >= 0:
            figures["env_steps_to_training_solved"] = float(module.training_solved_after)
        return figures

    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what the policy earns, and when it first solved the task."""
        low, high = figures["eval_return_low"], figures["eval_return_high"]
        said = (
            f"{self.name} after {figures['env_steps']:,.0f} steps: the policy earns {figures['eval_return_mean']:.1f} "
            f"an episode (95 % interval {low:.1f} to {high:.1f}), {figures['greedy_return_mean']:.1f} if greedy"
        )
        if "env_steps_to_solved" in figures:
            said += f"\n  first solved ({self.solved_at:g}) after {figures['env_steps_to_solved']:,.0f} steps"
        return said


def solved_of_last(count: int, metrics: Path, name: str, threshold: float) -> float:
    """Fraction of a run's last evaluations that solved the task."""
    with metrics.open(newline="") as file:
        returns = [float(row[name]) for row in csv.DictReader(file) if row.get(name)][-count:]
    return sum(value >= threshold for value in returns) / len(returns)
