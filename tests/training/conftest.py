"""A model of five weights that draws from every generator, and a training of eight steps for it."""

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from zoo.data import Batches, ImageSet
from zoo.training import Experiment, Loaders, fit, sum_losses


class Noisy(pl.LightningModule):
    """Guesses a number from four pixels, under noise; keeps a running mean; anneals over the whole training."""

    def __init__(self, validation_errors=(0.5, 0.25)):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Linear(4, 1)
        self.register_buffer("mean", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        images, labels = batch
        noise = torch.rand(()) + random.random() + np.random.rand()
        squared = (self.net(images.flatten(1) / 255).squeeze(1) - labels).square().mean()
        self.mean.mul_(0.9).add_(0.1 * squared.detach())
        self.log("train_error", squared, on_step=False, on_epoch=True)
        return sum_losses({"squared": squared, "shrink": noise * self.net.weight.square().sum()}, self.global_step)

    def validation_step(self, batch, batch_idx):
        self.log("validation_error", self.hparams["validation_errors"][self.current_epoch], prog_bar=True)

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class NoisyExperiment(Experiment):
    name = "noisy"

    def __init__(self, module, loaders, monitor, monitor_mode):
        self.module, self.loaders, self.monitor, self.monitor_mode = module, loaders, monitor, monitor_mode


@pytest.fixture
def interrupt(at) -> Callable[..., pl.Callback]:
    """Sends signals to this process while a step is under way, all at once."""

    def make(step: int, *signals: signal.Signals) -> pl.Callback:
        def send(module: pl.LightningModule) -> None:
            for number in signals or [signal.SIGINT]:
                signal.raise_signal(number)

        return at(step, send)

    return make


@pytest.fixture
def noisy() -> type[Noisy]:
    return Noisy


SETTINGS = {
    "trainer": {"accelerator": "cpu", "devices": "1", "precision": "32-true", "gradient_clip": 5.0},
    "logger": {"name": "csv", "project": "tests"},
    "seed": 1,
}


@pytest.fixture
def train() -> Callable[..., Path]:
    """Train ``Noisy`` for two epochs of four steps in a folder, or go on with it, and give the checkpoint to use."""

    def run(
        folder: Path,
        *callbacks: pl.Callback,
        module: pl.LightningModule | None = None,
        validation: bool = True,
        monitor: str | None = "validation_error",
        monitor_mode: str = "min",
        max_epochs: int | None = 2,
        default_epochs: int | None = None,
        **loading: Any,
    ):
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (16, 1, 2, 2), dtype=torch.uint8, generator=generator)
        data = ImageSet(images, torch.arange(16) % 3)
        loaders = Loaders(
            train=lambda rank, ranks: Batches(data, 4, SETTINGS["seed"], rank, ranks),
            validation=(lambda rank, ranks: Batches(data, 16, None, rank, ranks)) if validation else None,
            max_epochs=default_epochs,
            **loading,
        )
        pl.seed_everything(SETTINGS["seed"], workers=True, verbose=False)
        settings = {**SETTINGS, "trainer": {**SETTINGS["trainer"], "max_epochs": max_epochs}}
        return fit(NoisyExperiment(module or Noisy(), loaders, monitor, monitor_mode), folder, settings, callbacks)

    return run
