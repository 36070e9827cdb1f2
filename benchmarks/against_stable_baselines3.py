"""Wall time to solve CartPole-v1, compared with Stable-Baselines3.

    python benchmarks/against_stable_baselines3.py seeds=5

All algorithms train in one process, on one thread, in turn. Two times are measured: until the first evaluation over 100
episodes that solves the task, and until the mean return of the last 100 training episodes does. They include
evaluations, every 4,096 steps in the same environments, and exclude imports and a short warm-up.
"""

import importlib.metadata
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.cli._commands import make_experiment
from zoo.cli._composition import compose_config
from zoo.control import VectorEnvAdapter, evaluate_policy, make_vector_env
from zoo.control._seeding import EVALUATION, derive_seed
from zoo.control.policy_gradient import CategoricalPolicy
from zoo.training import TrainingInterruptedError, fit, run_environment, write_json

if TYPE_CHECKING:  # of the extra ``bench``, without which the help can be printed
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.callbacks import BaseCallback

ENVIRONMENT, SOLVED = "CartPole-v1", 475
EVAL_FREQ, N_EVAL_EPISODES = 4096, 100
MARKS = {"evaluation": "first solved evaluation", "training": "last 100 training episodes solve it"}


@dataclass
class Arguments:
    """Arguments of this script.

    Args:
        seeds: number of seeds, counted from 1.
        record: file for the numbers; null for none.
    """

    seeds: int = 5
    record: str | None = None


class Stopwatch:
    """Records seconds and environment steps when each mark is first reached, or at the end of training.

    CPU seconds exclude the time of other processes.
    """

    def __init__(self) -> None:
        self.start, self.cpu_start = time.perf_counter(), time.process_time()
        self.marks: dict[str, dict[str, float | bool]] = {}

    def record(self, mark: str, steps: int, reached: bool = True) -> None:
        """Record the current time, unless the mark was reached before."""
        now = {"seconds": time.perf_counter() - self.start, "cpu_seconds": time.process_time() - self.cpu_start}
        self.marks.setdefault(mark, {**now, "env_steps": steps, "reached": reached})

    @property
    def done(self) -> bool:
        """Whether all marks were reached."""
        return len(self.marks) == len(MARKS)

    def stop(self, steps: int) -> dict[str, dict[str, float | bool]]:
        """Record the total time for marks that were not reached."""
        for mark in MARKS:
            self.record(mark, steps, reached=False)
        return self.marks


def train_ours(seed: int, budget: int) -> dict[str, dict[str, float | bool]]:
    """Train as ``scripts/train.py experiment=policy_gradient_cartpole`` does, including checkpoints and metrics."""
    overrides = ["experiment=policy_gradient_cartpole", f"seed={seed}", f"model.total_timesteps={budget}"]
    config = compose_config(overrides)
    watch = Stopwatch()
    pl.seed_everything(seed, workers=True, verbose=False)
    experiment = make_experiment(config)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(experiment, Path(folder), config, [OurMarks(watch)])
        except TrainingInterruptedError:  # nothing of the training is kept
            raise KeyboardInterrupt from None
    return watch.stop(int(experiment.module.env_steps))


class OurMarks(pl.Callback):
    """Records the marks that the module reports."""

    def __init__(self, watch: Stopwatch):
        self.watch = watch

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: object) -> None:
        self.record("training", pl_module.training_solved_after, trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.record("evaluation", pl_module.solved_after, trainer)

    def record(self, mark: str, steps: Tensor, trainer: pl.Trainer) -> None:
        if steps >= 0:
            self.watch.record(mark, int(steps))
            trainer.should_stop = self.watch.done


def train_theirs(algorithm: "type[BaseAlgorithm]", seed: int, budget: int, **options: object) -> dict:
    """Train an algorithm of Stable-Baselines3 in eight environments."""
    from stable_baselines3.common.env_util import make_vec_env

    torch.use_deterministic_algorithms(False)  # enabled by our trainer
    watch = Stopwatch()
    vec_env = make_vec_env(ENVIRONMENT, n_envs=8, seed=seed)
    model = algorithm("MlpPolicy", vec_env, seed=seed, device="cpu", **options)
    model.learn(budget, callback=their_marks(watch, seed))
    return watch.stop(model.num_timesteps)


def their_marks(watch: Stopwatch, seed: int) -> "BaseCallback":
    """Return a callback that evaluates as often as our trainer, and checks the last hundred episodes of training."""
    from stable_baselines3.common.callbacks import BaseCallback

    class TheirMarks(BaseCallback):
        envs = VectorEnvAdapter(make_vector_env(ENVIRONMENT, 2 * N_EVAL_EPISODES))
        next_evaluation = EVAL_FREQ

        def _on_rollout_start(self) -> None:
            if self.num_timesteps < self.next_evaluation:
                return
            self.next_evaluation += EVAL_FREQ
            policy = CategoricalPolicy(Logits(self.model.policy), num_actions=2)
            sampled, _ = evaluate_policy(policy, self.envs, derive_seed(seed, EVALUATION, self.num_timesteps))
            if sampled.mean >= SOLVED:
                watch.record("evaluation", self.num_timesteps)

        def _on_step(self) -> bool:
            return not watch.done

        def _on_rollout_end(self) -> None:
            recent = [episode["r"] for episode in self.model.ep_info_buffer]
            if len(recent) == N_EVAL_EPISODES and statistics.fmean(recent) >= SOLVED:
                watch.record("training", self.num_timesteps)

    return TheirMarks()


class Logits(torch.nn.Module):
    """Logits of a policy of Stable-Baselines3, for evaluation by our code."""

    def __init__(self, policy: torch.nn.Module):
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor) -> Tensor:
        return self.policy.action_net(self.policy.mlp_extractor.forward_actor(observation))


def linear_decay(start: float) -> Callable[[float], float]:
    """Return a schedule that decays linearly to 0."""
    return lambda remaining: start * remaining


class Algorithm(NamedTuple):
    """Training function with its settings."""

    name: str
    train: Callable[..., dict[str, dict[str, float | bool]]]
    budget: int
    options: dict[str, object]


def algorithms() -> list[Algorithm]:
    """Return our algorithm, then those of Stable-Baselines3 with the settings of RL Baselines3 Zoo for CartPole-v1."""
    if importlib.util.find_spec("stable_baselines3") is None:
        raise ValueError('stable_baselines3 is not installed: pip install -e ".[bench]"')
    from stable_baselines3 import A2C, PPO

    ppo = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gae_lambda": 0.8, "gamma": 0.98, "ent_coef": 0.0}
    ppo |= {"learning_rate": linear_decay(1e-3), "clip_range": linear_decay(0.2), "algorithm": PPO}
    return [
        Algorithm("`PolicyGradient`", train_ours, 102_400, {}),
        Algorithm("Stable-Baselines3 PPO", train_theirs, 100_000, ppo),
        Algorithm("Stable-Baselines3 A2C", train_theirs, 500_000, {"ent_coef": 0.0, "algorithm": A2C}),
    ]


def table(results: dict[str, list[dict]]) -> str:
    """Return medians over seeds as Markdown, relative to the first algorithm."""
    head = "".join(f" {what}, s | steps | × ours |" for what in MARKS.values())
    lines = [f"| |{head}", "| --- |" + " --- |" * 3 * len(MARKS)]
    ours = next(iter(results.values()))
    for name, runs in results.items():
        cells = [
            cell for mark in MARKS for cell in median_cells([run[mark] for run in runs], [run[mark] for run in ours])
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def median_cells(runs: list[dict], ours: list[dict]) -> tuple[str, str, str]:
    """Return median seconds, median steps, and the ratio of the seconds to ours."""
    seconds, unit = (statistics.median(run["seconds"] for run in group) for group in (runs, ours))
    steps = statistics.median(run["env_steps"] for run in runs)
    missed = sum(not run["reached"] for run in runs)
    note = f" ({missed} of {len(runs)} never, counted in full)" if missed else ""
    return f"{seconds:.1f}{note}", f"{steps:,.0f}", f"{seconds / unit:.1f}"


def main() -> None:
    """Print the table and write the record."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(Arguments, str(__doc__)))
            return
        arguments = parse_arguments(Arguments, sys.argv[1:])
        torch.set_num_threads(1)
        entries = algorithms()
        for name, train, _, options in entries:
            print(f"warming up: {name}", flush=True)
            train(seed=0, budget=2 * EVAL_FREQ, **options)
        results: dict[str, list[dict]] = {name: [] for name, *_ in entries}
        for seed in range(1, arguments.seeds + 1):
            for name, train, budget, options in entries:
                marks = train(seed=seed, budget=budget, **options)
                results[name].append({"seed": seed, **marks})
                print(f"seed {seed}: {name}: {marks}", flush=True)
        print(f"\n{table(results)}")
        if arguments.record is not None:
            record = {"command": " ".join(["python", *sys.argv]), **run_environment(), "seeds": arguments.seeds}
            record["versions"]["stable-baselines3"] = importlib.metadata.version("stable-baselines3")
            write_json(Path(arguments.record), record | {"results": results})


if __name__ == "__main__":
    main()
