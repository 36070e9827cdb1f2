import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from zoo.constraints import COUNT, NOT_NEGATIVE, check_constraints
from zoo.control.callbacks import StopAfterSteps
from zoo.control.envs.vector_env import Environments
from zoo.control.evaluators import Score
from zoo.control.rollout import Rollouts
from zoo.control.seeding import REPORT, seed_of
from zoo.control.video import record_episode
from zoo.plotting import return_curves, save_figure
from zoo.training import Experiment, Loaders, read_metrics

WHOLE_EPISODES = 0  # as n_steps


class ControlExperiment(Experiment):
    """Training a policy by acting in an environment, and what is reported at its end.

    Args:
        name: of the environment.
        module: the LightningModule, with a ``policy``, ``env_steps`` and ``solved_after``.
        acting: where it learns.
        score: how it is measured.
        seed: of environments and measurements.
        n_steps: steps of each environment between two updates of the policy; ``WHOLE_EPISODES`` to end with the
            episodes.
        eval_freq: environment steps between two measurements; rounded to whole rollouts, of the longest episodes.
            There are more where environments are reset at each, and their episodes may last longer.
        total_timesteps: after which training ends: of whole episodes at the next measurement, else at the last before.
        env_kwargs: of the environment, to film it.

    Raises:
        ValueError: a number of steps makes no sense, or there are fewer steps than a measurement comes after.
    """

    monitor_mode = "max"

    def __init__(
        self,
        name: str,
        module: Any,
        acting: Environments,
        score: Score,
        seed: int,
        n_steps: int,
        eval_freq: int,
        total_timesteps: int,
        env_kwargs: Mapping[str, Any] | None = None,
    ):
        numbers = {"n_steps": n_steps, "eval_freq": eval_freq}
        check_constraints(numbers, {"n_steps": NOT_NEGATIVE, "eval_freq": COUNT})
        self.name, self.module, self.score, self.seed, self.monitor = name, module, score, seed, score.name
        self.total_timesteps, self.env_kwargs = total_timesteps, env_kwargs or {}
        whole = n_steps == WHOLE_EPISODES
        rollout = len(acting) * (acting.longest_episode if whole else n_steps)
        rollouts = max(1, round(eval_freq / rollout), whole_episode(acting, rollout // len(acting)))
        if total_timesteps < rollouts * rollout:
            raise ValueError(
                f"total_timesteps must be at least {rollouts * rollout}, where the first measurement is; "
                f"got {total_timesteps}"
            )
        self.loaders = Loaders(
            train=lambda rank, ranks: Rollouts(
                acting, module.policy, rollout // len(acting), rollouts, seed, rank, whole
            ),
            validation=lambda rank, ranks: score,
            # An episode may be as short as one step; training then ends by counting them.
            max_epochs=total_timesteps // (rollouts * (len(acting) if whole else rollout)),
            fraction_done=lambda: min(1.0, int(module.env_steps) / total_timesteps),
            supports_mid_epoch_resume=acting.remembers,
            single_process=True,
        )

    def callbacks(self) -> list[pl.Callback]:
        """Callbacks of this kind of model alone."""
        return [StopAfterSteps(self.total_timesteps)]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure what training ended with, and beside it the best of the measurements on the way; draw these."""
        last = checkpoint.with_name("last.ckpt")
        figures = self.evaluate(last, folder)
        same = self.load(checkpoint).env_steps == self.load(last).env_steps
        best = figures if same else self.evaluate(checkpoint, folder)
        figures[f"best_{self.score.name}"] = best[self.score.name]
        steps, scores = learning_curve(folder / "metrics.csv", self.score.name)
        if (threshold := self.score.reward_threshold) is not None:
            recent = scores[-10:]
            figures["solved_of_last_10"] = sum(score >= threshold for score in recent) / len(recent)
        draw_returns({self.name: [(steps, scores)]}, threshold, self.score.name, folder / "returns.png")
        return figures

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Measure a checkpoint, with random numbers that no measurement of the training used."""
        module = self.load(checkpoint)
        figures = self.score.measure(module.policy, seed_of(self.seed, REPORT))
        figures["env_steps"] = float(module.env_steps)
        if module.solved_after >= 0:
            figures["env_steps_to_solved"] = float(module.solved_after)
        return figures

    def load(self, checkpoint: Path) -> Any:
        """Read a trained model of this kind."""
        return type(self.module).load(checkpoint)

    def render(self, checkpoint: Path, path: Path) -> None:
        """Film an episode of a checkpoint's greedy policy as a GIF."""
        record_episode(self.load(checkpoint).policy, self.name, seed_of(self.seed, REPORT), path, **self.env_kwargs)

    @abstractmethod
    def describe(self, figures: Mapping[str, float]) -> str:
        """Say in words what the policy reached."""

    def solved(self, figures: Mapping[str, float]) -> str:
        """Say in words when the task was first solved, if it was, and whether by luck."""
        if "env_steps_to_solved" not in figures:
            return ""
        best, threshold = self.score.best, self.score.reward_threshold
        lucky = best is not None and threshold is not None and best < threshold
        luck = f", by luck: the best policy there can be earns {best:.6g} on average" if lucky else ""
        return f"\n  first solved ({threshold:g}) after {figures['env_steps_to_solved']:,.0f} steps{luck}"

    @property
    def exit_reason(self) -> str:
        """Why a training that was not interrupted ended."""
        if not self.stopped_on_reward_threshold:
            return "all epochs done"
        reached = f"{self.score.name} reached {self.score.reward_threshold:g}"
        return f"solved: {reached} after {int(self.module.solved_after)} environment steps"

    @property
    def stopped_on_reward_threshold(self) -> bool:
        """Whether solving the task ended the training."""
        return bool(self.module.solved_after >= 0 and self.module.hparams["stop_on_reward_threshold"])

    def budget(self) -> str:
        """Say in words that training ended well before or after the steps it was given, if it did.

        Measurements end it, which rollouts of whole episodes put farther apart, and steps that only reset do not count.
        """
        steps = int(self.module.env_steps)
        if self.stopped_on_reward_threshold or steps == 0 or abs(steps / self.total_timesteps - 1) < 0.1:
            return ""
        return (
            f"\n  trained for {steps:,} steps of model.total_timesteps={self.total_timesteps:,}, as training ends at a "
            "measurement, and steps that only reset do not count: compare trainings at equal env_steps"
        )


def whole_episode(acting: Environments, steps: int) -> int:
    """Count the rollouts of so many steps in which an episode comes to its end before environments are reset.

    Those that remember their state are not. Where no end is known, episodes are taken to be short.

    Example:
        >>> from zoo.control.envs.vector_env import make_environments
        >>> [whole_episode(Environments(make_environments(name, 2)), 16) for name in ("CartPole-v1", "Acrobot-v1")]
        [1, 32]
    """
    if acting.remembers or acting.episode_limit is None:
        return 1
    return math.ceil(acting.episode_limit / steps)


def learning_curve(metrics: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a run's measurements from its ``metrics.csv``: environment steps, and the figure of that name."""
    steps, figures = read_metrics(metrics, "env_steps", name)
    return np.array(steps), np.array(figures)


def draw_returns(
    runs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], reward_threshold: float | None, name: str, path: Path
) -> None:
    """Draw how a figure grew with the environment steps; several runs of the same name are one line with a band."""
    save_figure(return_curves(runs, reward_threshold, name.replace("_", " ")), path)
