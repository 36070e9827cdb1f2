import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class ExactResume(pl.Callback):
    """Saves the states of all random number generators in checkpoints, and restores the position in the data.

    A run that is killed at any moment and resumed from its last checkpoint ends with the same weights as an
    uninterrupted run, bit for bit, on the same machine. Lightning itself saves weights, buffers, optimizer, schedule,
    the counters of the loops and the position in the shuffled data; but it does not restore the position if the module
    has asked for the number of steps. The checkpoint holds the generators of all ranks.
    """

    def __init__(self) -> None:
        self._states: list[dict[str, Any]] | None = None
        self._positions: list[dict[str, Any]] = []

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        states = [random_state()] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, random_state())
        checkpoint["random_states"] = states

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._states = checkpoint["random_states"]
        self._positions = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the generators last, after everything that draws from them before the first step."""
        rank = trainer.global_rank
        for position in self._positions:
            trainer.train_dataloader.load_state_dict(position)  # type: ignore[union-attr]
        if self._states is None:
            if rank > 0:  # otherwise all ranks would draw the same noise
                torch.manual_seed(torch.initial_seed() + rank)
        elif rank < len(self._states):
            set_random_state(self._states[rank])
        self._states, self._positions = None, []


def random_state() -> dict[str, Any]:
    """Return the states of the generators of Python, numpy and torch as plain data."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    words = torch.from_numpy(np.asarray(keys, dtype=np.int64))
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, words, int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore the states of ``random_state``."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(*state["mps"])
