"""Runs ``scripts/train.py`` with the given arguments; each process leaves ``rank<n>.pt`` in the run's folder.

With ``STOP_AT=n`` in the environment the first process, and it alone, gets a Ctrl-C within step n.
"""

import os
import signal

import pytorch_lightning as pl
import torch

from zoo.attention.ram import experiment as ram
from zoo.cli._config_groups import configs_dir
from zoo.cli._schemas import MODELS


class Witness(pl.Callback):
    """Writes down what a process ends with, and which pictures it was given in the first epoch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.is_global_zero and trainer.global_step + 1 == int(os.environ.get("STOP_AT", 0)):
            signal.raise_signal(signal.SIGINT)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 0:
            self.seen.append(batch)

    def on_train_end(self, trainer, pl_module):
        end = {"weights": pl_module.state_dict(), "random": torch.get_rng_state(), "seen": self.seen}
        torch.save(end, f"{trainer.default_root_dir}/rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    for experiment in (choice.builder for choice in MODELS.values()):
        experiment.callbacks = lambda self: [Witness()]
    ram._draw_glimpses = ram._draw_misclassified = lambda *args: None  # figures take longer than the training
    script = configs_dir().parent / "scripts" / "train.py"
    exec(compile(script.read_text(), script, "exec"))  # this file stays the command that starts the second process
