import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from zoo._constraints import COUNT, NOT_NEGATIVE, check_constraints
from zoo.control._evaluation import PolicyEvaluator
from zoo.control._module import ControlModule, StopOnTotalTimesteps
from zoo.control._seeding import REPORT, derive_seed
from zoo.control._video import record_episode
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.rollout_dataset import RolloutDataset
from zoo.plotting import return_curves, save_figure
from zoo.training import Experiment, Loaders, read_metrics

COMPLETE_EPISODES = 0  # value of n_steps


class ControlExperiment(Experiment):
    """Base class for experiments that train a policy in an environment.

    The policy is updated every ``n_steps`` steps of each environment, or after one episode of each if ``n_steps`` is
    ``COMPLETE_EPISODES``. ``eval_freq`` is rounded to whole rollouts, and raised to the length of an episode for
    environments that are reset at each evaluation. Training ends at the last evaluation within ``total_timesteps``, or
    at the first one after them if rollouts are complete episodes.

    Args:
        env: id in Gymnasium's registry, or ``module:id`` with a module that registers the environment on import.
        seed: seed of environments and evaluations.
        num_envs: number of training environments.
        eval_freq: environment steps between two evaluations.
        n_eval_episodes: number of episodes of an evaluation, for the sampled and for the greedy policy each.
        total_timesteps: environment steps after which training ends.
        env_kwargs: keyword arguments of the environment, and ``max_episode_steps``.
        trust: whether the module of ``env`` may be imported, which runs its code.
    """

    monitor_mode = "max"

    def __init__(
        self,
        name: str,
        module: ControlModule,
        envs: VectorEnvAdapter,
        evaluator: PolicyEvaluator,
        seed: int,
        n_steps: int,
        eval_freq: int,
        total_timesteps: int,
        env_kwargs: Mapping[str, Any] | None = None,
    ):
        check_constraints({"n_steps": n_steps, "eval_freq": eval_freq}, {"n_steps": NOT_NEGATIVE, "eval_freq": COUNT})
        self.name, self.module, self.evaluator, self.seed = name, module, evaluator, seed
        self.monitor, self.total_timesteps, self.env_kwargs = evaluator.monitor, total_timesteps, env_kwargs or {}
        complete = n_steps == COMPLETE_EPISODES
        n_steps = envs.max_episode_steps if complete else n_steps
        rollout_size = len(envs) * n_steps
        num_rollouts = max(1, round(eval_freq / rollout_size), _min_rollouts(envs, n_steps))
        if total_timesteps < num_rollouts * rollout_size:
            raise ValueError(
                f"total_timesteps must be at least {num_rollouts * rollout_size}, the step of the first evaluation; "
                f"got {total_timesteps}"
            )
        self.loaders = Loaders(
            train=lambda rank, ranks: RolloutDataset(envs, module.policy, n_steps, num_rollouts, seed, rank, complete),
            validation=lambda rank, ranks: evaluator,
            # A complete episode may be as short as one step; StopOnTotalTimesteps then ends training.
            max_epochs=total_timesteps // (num_rollouts * (len(envs) if complete else rollout_size)),
            fraction_done=lambda: min(1.0, int(module.env_steps) / total_timesteps),
            supports_mid_epoch_resume=envs.can_save_state,
            single_process=True,
        )

    def callbacks(self) -> list[pl.Callback]:
        return [StopOnTotalTimesteps(self.total_timesteps)]

    def report(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Return metrics of the last policy and the monitored one of the best policy; plot the learning curve."""
        last = checkpoint.with_name("last.ckpt")
        metrics = self.evaluate(last, folder)
        is_last = self.load(checkpoint).env_steps == self.load(last).env_steps
        best = metrics if is_last else self.evaluate(checkpoint, folder)
        metrics[f"best_{self.monitor}"] = best[self.monitor]
        steps, values = learning_curve(folder / "metrics.csv", self.monitor)
        if (threshold := self.evaluator.reward_threshold) is not None:
            recent = values[-10:]
            metrics["solved_of_last_10"] = sum(value >= threshold for value in recent) / len(recent)
        draw_returns({self.name: [(steps, values)]}, threshold, self.monitor, folder / "returns.png")
        return metrics

    def evaluate(self, checkpoint: Path, folder: Path) -> dict[str, float]:
        """Evaluate a checkpoint with random numbers that no evaluation in training used."""
        module = self.load(checkpoint)
        metrics = self.evaluator.evaluate(module.policy, derive_seed(self.seed, REPORT))
        metrics["env_steps"] = float(module.env_steps)
        if module.solved_after >= 0:
            metrics["env_steps_to_solved"] = float(module.solved_after)
        return metrics

    def load(self, checkpoint: Path) -> Any:
        return type(self.module).load(checkpoint)

    def render(self, checkpoint: Path, path: Path) -> None:
        """Record an episode of a checkpoint's greedy policy as a GIF."""
        record_episode(self.load(checkpoint).policy, self.name, derive_seed(self.seed, REPORT), path, **self.env_kwargs)

    def describe_solution(self, metrics: Mapping[str, float]) -> str:
        """Return a line on when the task was first solved, and whether by luck; empty if it was not solved."""
        if "env_steps_to_solved" not in metrics:
            return ""
        optimum, threshold = self.evaluator.optimum, self.evaluator.reward_threshold
        lucky = optimum is not None and threshold is not None and optimum < threshold
        luck = f", by luck: the optimal policy returns {optimum:.6g} on average" if lucky else ""
        return f"\n  first solved ({threshold:g}) after {metrics['env_steps_to_solved']:,.0f} steps{luck}"

    @property
    def exit_reason(self) -> str:
        """Reason why training ended, if it was not interrupted."""
        if not self.stopped_on_reward_threshold:
            return "all epochs done"
        reached = f"{self.monitor} reached {self.evaluator.reward_threshold:g}"
        return f"solved: {reached} after {int(self.module.solved_after)} environment steps"

    @property
    def stopped_on_reward_threshold(self) -> bool:
        return bool(self.module.solved_after >= 0 and self.module.hparams["stop_on_reward_threshold"])

    def describe_length(self) -> str:
        """Return a line on the number of steps if it differs much from ``total_timesteps``; otherwise empty."""
        steps = int(self.module.env_steps)
        if self.stopped_on_reward_threshold or steps == 0 or abs(steps / self.total_timesteps - 1) < 0.1:
            return ""
        return (
            f"\n  trained for {steps:,} steps of model.total_timesteps={self.total_timesteps:,}, as training ends at "
            "an evaluation, and steps that only reset do not count: compare runs at equal env_steps"
        )


def _min_rollouts(envs: VectorEnvAdapter, n_steps: int) -> int:
    """Return the smallest number of rollouts between two evaluations."""
    # Environments that cannot save their state are reset at evaluations: the rollouts must contain a complete episode.
    # Episodes without a known time limit are assumed to be short.
    if envs.can_save_state or envs.expected_episode_length is None:
        return 1
    return math.ceil(envs.expected_episode_length / n_steps)


def learning_curve(metrics: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return environment steps and a metric of a run's evaluations from its ``metrics.csv``."""
    steps, values = read_metrics(metrics, "env_steps", name)
    return np.array(steps), np.array(values)


def draw_returns(
    runs: Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]], reward_threshold: float | None, name: str, path: Path
) -> None:
    """Plot a metric over environment steps; several runs of the same name become one line with a band."""
    save_figure(return_curves(runs, reward_threshold, name.replace("_", " ")), path)
