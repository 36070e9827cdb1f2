from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from zoo.control._evaluation import PolicyEvaluator
from zoo.control._seeding import EVALUATION, derive_seed
from zoo.control.envs._spaces import space_from_dict, to_batch, to_env_actions
from zoo.training import LoadableModule


class ControlModule(LoadableModule):
    """Base class for LightningModules with a ``policy`` that learns from rollouts and is validated by an evaluator.

    Hyperparameters include ``seed``, ``reward_threshold``, ``stop_on_reward_threshold`` and ``spaces``.
    """

    policy: Any
    env_steps: Tensor
    solved_after: Tensor
    """Environment step at which the task was first solved; -1 until then."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch_metrics: dict[str, list[float]] = {}
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("solved_after", torch.tensor(-1))

    @torch.no_grad()
    def predict(
        self, observation: Any, state: None = None, episode_start: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray | np.generic, None]:
        """Return the action for one observation or a batch, and None, as Stable-Baselines3's ``predict``.

        Actions are elements of the environment's action space. ``deterministic`` selects the most likely action, or the
        one of the highest value, instead of a sample. ``state`` and ``episode_start`` are ignored: policies are not
        recurrent.

        Raises:
            ValueError: the observation does not have the environment's shape, or is not finite.

        Example:
            >>> from zoo.control import PolicyGradient
            >>> action, _ = PolicyGradient([4], 2).predict(np.zeros(4), deterministic=True)
            >>> action.shape
            ()
        """
        hparams, tabular = self.hparams, self.policy.tabular
        spaces = {name: space_from_dict(plain) for name, plain in (hparams["spaces"] or {}).items()}
        shape = () if tabular else hparams.get("observation_shape", hparams.get("observation"))
        batch, single = to_batch(spaces.get("observation"), shape, observation, tabular)
        if batch.dtype.kind == "f" and not np.isfinite(batch).all():
            raise ValueError("the observation is not finite")
        noise = self.policy.noise(len(batch))
        if deterministic:
            noise = torch.zeros_like(noise)
        device = next(self.policy.parameters()).device
        actions = self.policy.act(torch.from_numpy(batch).to(device), noise).cpu().numpy()
        if "action" in spaces:
            actions = to_env_actions(spaces["action"], actions)
        return (actions[0] if single else actions), None  # a NumPy scalar: some environments use it as an index

    def add_metrics(self, metrics: Mapping[str, Any], episode_return: float | None) -> None:
        """Add a rollout's metrics, whose means are logged after the epoch, and the latest training return, if any."""
        for name, value in metrics.items():
            self.epoch_metrics.setdefault(name, []).append(float(value))
        if episode_return is not None:
            self.epoch_metrics["episode_return"] = [episode_return]

    def on_train_epoch_end(self) -> None:
        self.log_dict({name: sum(values) / len(values) for name, values in self.epoch_metrics.items()})
        self.epoch_metrics = {}

    def validation_step(self, evaluator: PolicyEvaluator, batch_idx: int) -> None:
        """Evaluate the frozen policy, log its metrics, and stop training if the task is solved."""
        steps = int(self.env_steps)
        metrics = evaluator.evaluate(self.policy, derive_seed(self.hparams["seed"], EVALUATION, steps))
        monitored = metrics.pop(evaluator.monitor)
        self.log_dict({"env_steps": float(steps), evaluator.monitor: monitored}, prog_bar=True, batch_size=1)
        self.log_dict(metrics, batch_size=1)
        self.check_reward_threshold(monitored)

    def check_reward_threshold(self, value: float) -> None:
        """Record in ``solved_after`` when the monitored metric first solves the task, and stop training there."""
        threshold = self.hparams["reward_threshold"]
        if threshold is None or not value >= threshold:  # NaN does not solve a task
            return
        if self.solved_after < 0:
            self.solved_after.copy_(self.env_steps)
        if self.hparams["stop_on_reward_threshold"]:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metrics of the current epoch, so that a resumed epoch ends with the same means."""
        checkpoint["epoch_metrics"] = {name: list(values) for name, values in self.epoch_metrics.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.epoch_metrics = checkpoint["epoch_metrics"]


class StopOnTotalTimesteps(pl.Callback):
    """Stops training at the first evaluation after a number of environment steps.

    Training that was finished does not continue when resumed, unless ``total_timesteps`` is now larger.
    """

    def __init__(self, total_timesteps: int):
        self.total_timesteps = total_timesteps
        self.finished = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.finished

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        exhausted = int(pl_module.env_steps) >= self.total_timesteps
        trainer.should_stop |= exhausted
        solved = int(pl_module.solved_after) >= 0
        self.finished = exhausted or (solved and pl_module.hparams["stop_on_reward_threshold"])

    def state_dict(self) -> dict[str, Any]:
        return {"finished": self.finished, "total_timesteps": self.total_timesteps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.finished = state_dict["finished"] and state_dict["total_timesteps"] >= self.total_timesteps
