from typing import Any

import pytorch_lightning as pl


def check_reward_threshold(module: Any, value: float) -> None:
    """Record in ``solved_after`` the environment step at which a task is first solved, and stop training there.

    Args:
        module: LightningModule with the buffers ``env_steps`` and ``solved_after`` (-1 until then), and the
            hyperparameters ``reward_threshold`` (None if the task has none) and ``stop_on_reward_threshold``.
        value: monitored metric of the current policy.
    """
    threshold = module.hparams["reward_threshold"]
    if threshold is None or not value >= threshold:  # NaN does not solve a task
        return
    if module.solved_after < 0:
        module.solved_after.copy_(module.env_steps)
    if module.hparams["stop_on_reward_threshold"]:
        module.trainer.should_stop = True


class StopOnTotalTimesteps(pl.Callback):
    """Stops training at the first evaluation after a number of environment steps.

    Training that was finished, for whatever reason, does not continue when resumed, unless ``total_timesteps`` is now
    larger.

    Args:
        total_timesteps: number of environment steps.
    """

    def __init__(self, total_timesteps: int):
        self.total_timesteps = total_timesteps
        self.finished = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the resumed training was finished."""
        trainer.should_stop |= self.finished

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop if the steps are used up."""
        exhausted = int(pl_module.env_steps) >= self.total_timesteps  # type: ignore[arg-type]
        trainer.should_stop |= exhausted
        solved = int(pl_module.solved_after) >= 0  # type: ignore[arg-type]
        self.finished = exhausted or (solved and pl_module.hparams["stop_on_reward_threshold"])

    def state_dict(self) -> dict[str, Any]:
        """Return whether training was finished, and its number of steps."""
        return {"finished": self.finished, "total_timesteps": self.total_timesteps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore a state returned by ``state_dict``."""
        self.finished = state_dict["finished"] and state_dict["total_timesteps"] >= self.total_timesteps
