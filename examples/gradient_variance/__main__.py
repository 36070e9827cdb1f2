"""Variance of the policy gradient by baseline: ``python -m examples.gradient_variance [record=FILE.json]``.

The policy is trained on CartPole-v1 until an evaluation first has a mean return of 200, and fixed from then on.
Constant, moving average and value function are fitted to other episodes of it.
"""

import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from examples.gradient_variance.estimators import (
    GradientVariance,
    collect_episodes,
    default_estimators,
    fit_value,
    variance_table,
)
from zoo.cli import arguments_help, parse_arguments, user_errors, wants_help
from zoo.cli._commands import make_experiment
from zoo.cli._composition import compose_config
from zoo.control import Policy, ReturnEstimate, VectorEnvAdapter, evaluate_policy, make_vector_env
from zoo.control._networks import make_network
from zoo.training import TrainingInterruptedError, fit, run_environment, write_json

ENVIRONMENT, RETURN = "CartPole-v1", 200


@dataclass
class Arguments:
    """Arguments of this program.

    Args:
        seed: seed of the training and of all episodes.
        num_samples: number of rollouts whose gradients are compared.
        episodes: number of episodes of a rollout.
        gamma: discount factor of the returns.
        record: file for the numbers; null for none.
    """

    seed: int = 1
    num_samples: int = 400
    episodes: int = 16
    gamma: float = 0.98
    record: str | None = None


class StopEarly(pl.Callback):
    """Stops at the first evaluation with a mean return of at least ``RETURN``."""

    def __init__(self, monitor: str | None):
        self.monitor = monitor

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the latest evaluation."""
        trainer.should_stop = trainer.callback_metrics[str(self.monitor)].item() >= RETURN


def partly_trained_policy(seed: int) -> Policy:
    """Train a policy to a mean return of ``RETURN``."""
    overrides = ["experiment=policy_gradient_cartpole", "model.eval_freq=512", f"seed={seed}"]
    config = compose_config(overrides)
    pl.seed_everything(seed, workers=True, verbose=False)
    experiment = make_experiment(config)
    with tempfile.TemporaryDirectory() as folder:
        try:
            fit(experiment, Path(folder), config, [StopEarly(experiment.monitor)])
        except TrainingInterruptedError:  # nothing of the training is kept
            raise KeyboardInterrupt from None
    policy: Any = experiment.module.policy
    return policy


def measured(asked: Arguments) -> tuple[ReturnEstimate, dict[str, GradientVariance]]:
    """Return the mean return of the policy, and the variance of its gradient by each estimator."""
    policy = partly_trained_policy(asked.seed)
    eval_envs = VectorEnvAdapter(make_vector_env(ENVIRONMENT, 2000))
    envs = VectorEnvAdapter(make_vector_env(ENVIRONMENT, asked.episodes))
    envs.reset(asked.seed)
    torch.manual_seed(asked.seed)
    value = make_network((4,), 1, hidden=[64])
    rollouts = list(collect_episodes(policy, envs, 20))
    fit_value(value, rollouts, asked.gamma)
    estimators = default_estimators(rollouts, value, asked.gamma)
    table = variance_table(policy, envs, estimators, asked.num_samples, asked.gamma)
    return evaluate_policy(policy, eval_envs, asked.seed).stochastic, table


def main() -> None:
    """Print the table, and write the record."""
    with user_errors():
        if wants_help(sys.argv[1:]):
            print(arguments_help(Arguments, str(__doc__)))
            return
        asked = parse_arguments(Arguments, sys.argv[1:])
        torch.set_num_threads(1)
        earned, variances = measured(asked)
        print(f"\nat a policy with a mean return of {earned.mean:.0f} ({earned.low:.0f} to {earned.high:.0f}):\n")
        print(
            "| baseline | total variance of the gradient | variance without baseline / with it |\n| --- | --- | --- |"
        )
        for name, (total, reduction) in variances.items():
            spread = f"{total.value:.3g} ({total.low:.3g} to {total.high:.3g})"
            print(f"| {name} | {spread} | {reduction.value:.1f} ({reduction.low:.1f} to {reduction.high:.1f}) |")
        if asked.record is not None:
            results = {name: {key: x._asdict() for key, x in row._asdict().items()} for name, row in variances.items()}
            record = {
                "command": " ".join(["python -m examples.gradient_variance", *sys.argv[1:]]),
                **run_environment(),
                "arguments": asdict(asked),
            }
            record |= {"return": earned._asdict(), "results": results}
            write_json(Path(asked.record), record)


if __name__ == "__main__":
    main()
