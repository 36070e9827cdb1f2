from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.control._callbacks import check_reward_threshold
from zoo.control._prediction import PredictMixin
from zoo.control._seeding import EVALUATION, derive_seed
from zoo.control.evaluation import PolicyEvaluator
from zoo.training import LoadableModule


class EpochMeans:
    """Means of metrics over the rollouts of an epoch, and the latest values of others.

    The state belongs into checkpoints, so that an interrupted epoch ends with the same means.

    Example:
        >>> means = EpochMeans()
        >>> means.update({"loss": 1.0}, latest={"return": 5.0})
        >>> means.update({"loss": 3.0}, latest={"return": 7.0})
        >>> means.compute_and_reset(), means.compute_and_reset()
        ({'loss': 2.0, 'return': 7.0}, {})
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}
        self._latest: dict[str, float] = {}

    def update(self, metrics: Mapping[str, Any], latest: Mapping[str, float]) -> None:
        """Add the metrics of one rollout, numbers or scalar tensors."""
        for name, value in metrics.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = [total + float(value), count + 1]
        self._latest.update(latest)

    def compute_and_reset(self) -> dict[str, float]:
        """Return means and latest values, and forget them."""
        means = {name: total / count for name, (total, count) in self._sums.items()} | self._latest
        self._sums, self._latest = {}, {}
        return means

    def state_dict(self) -> dict[str, Any]:
        """Return sums and latest values as plain data."""
        return {"sums": {name: list(sums) for name, sums in self._sums.items()}, "latest": dict(self._latest)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by ``state_dict``."""
        self._sums = {name: list(sums) for name, sums in state["sums"].items()}
        self._latest = dict(state["latest"])


class ControlModule(PredictMixin, LoadableModule):
    """Base class for LightningModules with a ``policy`` that learns from rollouts and is validated by an evaluator.

    Hyperparameters include ``seed``, ``reward_threshold`` and ``stop_on_reward_threshold``.
    """

    env_steps: Tensor
    solved_after: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.epoch_means = EpochMeans()
        self.register_buffer("env_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("solved_after", torch.tensor(-1))

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch."""
        self.log_dict(self.epoch_means.compute_and_reset())

    def validation_step(self, evaluator: PolicyEvaluator, batch_idx: int) -> None:
        """Evaluate the frozen policy, log its metrics, and stop training if the task is solved."""
        steps = int(self.env_steps)
        metrics = evaluator.evaluate(self.policy, derive_seed(self.hparams["seed"], EVALUATION, steps))
        monitored = metrics.pop(evaluator.monitor)
        self.log_dict({"env_steps": float(steps), evaluator.monitor: monitored}, prog_bar=True, batch_size=1)
        self.log_dict(metrics, batch_size=1)
        check_reward_threshold(self, monitored)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the means of the current epoch."""
        checkpoint["epoch_means"] = self.epoch_means.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the means of the current epoch."""
        self.epoch_means.load_state_dict(checkpoint["epoch_means"])
