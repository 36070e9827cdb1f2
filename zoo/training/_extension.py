"""Extension of runs beyond their configured budget: its record, and schedules that end later."""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
from torch.optim.lr_scheduler import CosineAnnealingLR

BUDGETS = ("trainer.max_epochs", "model.total_timesteps")
BUDGET_DEPENDENT = ("decay_steps", "lr_decay_steps")  # hyperparameters that default to the budget


def extend_config(config: Mapping[str, Any], budgets: Mapping[str, int]) -> dict[str, Any]:
    """Return a run's configuration with a larger budget; its entry ``extended`` lists the previous ones.

    An extended run differs from a run that had this budget from the start, since learning rate schedules differ.

    Raises:
        ValueError: the budget is smaller, or the run has another kind of budget.

    Example:
        >>> extend_config({"trainer": {"max_epochs": 2}}, {"trainer.max_epochs": 4})
        {'trainer': {'max_epochs': 4}, 'extended': {'trainer.max_epochs': [2]}}
    """
    new = copy.deepcopy(dict(config))
    for key, budget in budgets.items():
        group, name = key.split(".")
        before = new[group].get(name)
        if before is None:
            others = [other for other in BUDGETS if other != key]
            raise ValueError(f"the budget of this run is not {key}; set {' or '.join(f'{x}=...' for x in others)}")
        if budget < before:
            raise ValueError(f"{key} is {before} in this run, and can only become larger; got {budget}")
        if budget > before:
            new[group][name] = budget
            earlier = new.setdefault("extended", {})
            earlier[key] = [*earlier.get(key, []), before]
    return new


def configs_before_extension(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the previous configurations of an extended run, the latest first."""
    shorter: dict[str, Any] = copy.deepcopy(dict(config))
    while budgets := shorter.get("extended"):
        key = next(reversed(budgets))
        group, name = key.split(".")
        shorter[group][name] = budgets[key].pop()
        if not budgets[key]:
            del budgets[key]
        if not budgets:
            del shorter["extended"]
        yield copy.deepcopy(shorter)


class ExtendLRSchedules(pl.Callback):
    """Extends cosine learning rate schedules to the new end of a training.

    A checkpoint holds the old end, beyond which a cosine rises again. The learning rate continues at the value that a
    training with the new budget has at this step.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for schedule in (config.scheduler for config in trainer.lr_scheduler_configs):
            if isinstance(schedule, CosineAnnealingLR):
                schedule.T_max = int(trainer.estimated_stepping_batches)
                decay = (1 + math.cos(math.pi * schedule.last_epoch / schedule.T_max)) / 2
                for group, start in zip(schedule.optimizer.param_groups, schedule.base_lrs, strict=True):
                    group["lr"] = schedule.eta_min + (start - schedule.eta_min) * decay
