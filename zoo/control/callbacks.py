from typing import Any

import pytorch_lightning as pl

from zoo.control.evaluators import Score
from zoo.control.seeding import EVALUATION, seed_of


def validate(module: Any, score: Score) -> None:
    """Measure the frozen policy, log what it reached, and stop the training if the task is solved.

    Args:
        module: a LightningModule with a ``policy``; see ``stop_on_reward_threshold``.
        score: how to measure.
    """
    steps = int(module.env_steps)
    figures = score.measure(module.policy, seed_of(module.hparams["seed"], EVALUATION, steps))
    decisive = figures.pop(score.name)
    module.log_dict({"env_steps": float(steps), score.name: decisive}, prog_bar=True, batch_size=1)
    module.log_dict(figures, batch_size=1)
    stop_on_reward_threshold(module, decisive)


def stop_on_reward_threshold(module: Any, score: float) -> None:
    """Note in ``solved_after`` at which environment step a task was first solved, and stop the training there.

    Args:
        module: a LightningModule that has the buffers ``env_steps`` and ``solved_after`` (-1 until then), and among its
            hyperparameters ``reward_threshold``, the score from which on the task counts as solved (None: it never
            does), and ``stop_on_reward_threshold``.
        score: what the present policy reached.
    """
    threshold = module.hparams["reward_threshold"]
    if threshold is None or not score >= threshold:  # nor does what is not a number solve it
        return
    if module.solved_after < 0:
        module.solved_after.copy_(module.env_steps)
    if module.hparams["stop_on_reward_threshold"]:
        module.trainer.should_stop = True


class StopAfterSteps(pl.Callback):
    """Stop the training at the first evaluation after a number of environment steps.

    A training that is resumed from its end, whatever ended it, goes no further, unless it is to last longer now.

    Args:
        steps: how many.
    """

    def __init__(self, steps: int):
        self.steps = steps
        self.ended = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further where a resumed training had come to its end."""
        trainer.should_stop |= self.ended

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if there were as many."""
        spent = int(pl_module.env_steps) >= self.steps  # type: ignore[arg-type]
        trainer.should_stop |= spent
        solved = int(pl_module.solved_after) >= 0  # type: ignore[arg-type]
        self.ended = spent or (solved and pl_module.hparams["stop_on_reward_threshold"])

    def state_dict(self) -> dict[str, Any]:
        """Tell whether the training has come to its end, and how many steps it was to last."""
        return {"ended": self.ended, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Be where the training was."""
        self.ended = state_dict["ended"] and state_dict.get("steps", self.steps) >= self.steps
