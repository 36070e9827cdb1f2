"""Extension of runs beyond their configured length: its record, and schedules that end later."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
from torch.optim.lr_scheduler import CosineAnnealingLR

LENGTH_KEYS = ("trainer.max_epochs", "model.total_timesteps")
LENGTH_DEPENDENT = ("decay_steps", "lr_decay_steps")  # hyperparameters that default to the length


def extend_config(config: Mapping[str, Any], lengths: Mapping[str, int]) -> dict[str, Any]:
    """Return a run's configuration with a greater length; its entry ``extended`` lists the previous ones.

    An extended run differs from a run that had this length from the start, since learning rate schedules differ.

    Raises:
        ValueError: the length is smaller, or another option sets the length of the run.

    Example:
        >>> extend_config({"trainer": {"max_epochs": 2}}, {"trainer.max_epochs": 4})
        {'trainer': {'max_epochs': 4}, 'extended': {'trainer.max_epochs': [2]}}
    """
    new = copy.deepcopy(dict(config))
    for key, length in lengths.items():
        group, name = key.split(".")
        before = new[group].get(name)
        if before is None:
            (other,) = (other for other in LENGTH_KEYS if other != key)
            raise ValueError(f"the length of this run is not set by {key}; set {other}=...")
        if length < before:
            raise ValueError(f"{key} is {before} in this run, and can only become larger; got {length}")
        if length > before:
            new[group][name] = length
            earlier = new.setdefault("extended", {})
            earlier[key] = [*earlier.get(key, []), before]
    return new


def configs_before_extension(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the previous configurations of an extended run, the latest first."""
    shorter: dict[str, Any] = copy.deepcopy(dict(config))
    while lengths := shorter.get("extended"):
        key = next(reversed(lengths))
        group, name = key.split(".")
        shorter[group][name] = lengths[key].pop()
        if not lengths[key]:
            del lengths[key]
        if not lengths:
            del shorter["extended"]
        yield copy.deepcopy(shorter)


class ExtendLRSchedules(pl.Callback):
    """Extends cosine learning rate schedules to the new end of a training.

    A checkpoint holds the old end, beyond which a cosine rises again. The learning rate continues at the value that a
    training with the new length has at this step.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for schedule in (config.scheduler for config in trainer.lr_scheduler_configs):
            if isinstance(schedule, CosineAnnealingLR):
                schedule.T_max = int(trainer.estimated_stepping_batches)
                decay = (1 + math.cos(math.pi * schedule.last_epoch / schedule.T_max)) / 2
                for group, start in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
                    group["lr"] = schedule.eta_min + (start - schedule.eta_min) * decay
