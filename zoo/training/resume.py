import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class ExactResume(pl.Callback):
    """Carry the state of all random number generators through checkpoints, and restore the position in the data.

    With it a run that is killed anywhere and continued from its last checkpoint ends with the weights of the
    uninterrupted run, bit for bit, on one machine. All else that matters is in the checkpoint already: weights,
    baseline buffers, optimiser, schedule, the loops' counters and the position in the shuffled data. That last one
    Lightning saves, but does not restore if the module asked how many steps there will be.

    Under ``torch.distributed`` every rank draws from generators of its own, and the checkpoint holds them all.
    """

    def __init__(self) -> None:
        self.restored: list[dict[str, Any]] | None = None
        self.positions: list[dict[str, Any]] = []

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the generators' states into the checkpoint, as plain data."""
        states = [random_state()] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(states, random_state())
        checkpoint["random_states"] = states

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the states until everything else is set up."""
        self.restored = checkpoint["random_states"]
        self.positions = checkpoint["loops"]["fit_loop"]["state_dict"].get("combined_loader", [])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the generators last, when nothing but training draws from them."""
        rank = trainer.global_rank
        for position in self.positions:
            trainer.train_dataloader.load_state_dict(position)  # type: ignore[union-attr]
        if self.restored is None:
            if rank > 0:  # otherwise every rank would draw the same noise as the first
                torch.manual_seed(torch.initial_seed() + rank)
        elif rank < len(self.restored):
            set_random_state(self.restored[rank])
        self.restored, self.positions = None, []


def random_state() -> dict[str, Any]:
    """Read the states of Python's, numpy's and torch's generators as plain data."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(internal), gauss],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to states that ``random_state`` gave."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    if state["mps"] and torch.backends.mps.is_available():
        torch.mps.set_rng_state(*state["mps"])
