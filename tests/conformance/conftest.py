"""What every model of the zoo must do; a new one is held to it by standing in ``zoo.cli._schemas.MODELS``."""

from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl

from zoo.cli._schemas import MODELS
from zoo.training import read_checkpoint


@pytest.fixture(params=MODELS)
def model(request) -> str:
    return request.param


@pytest.fixture
def do_at(model, monkeypatch, at) -> Callable[..., None]:
    """Have something done to the module at a step of the next runs; ``do_at(None)``: nothing any more."""

    def arrange(step: int | None, act: Callable[[pl.LightningModule], object] = print) -> None:
        monkeypatch.setattr(MODELS[model].builder, "callbacks", lambda self: [at(step, act)] if step else [])

    return arrange


@pytest.fixture
def end_differences(differences) -> Callable[[Path, Path], list[str]]:
    """In what the last checkpoints of two runs differ, but for the paths in them: weights, optimizer, randomness.

    Python's own generator is left out: the type checker of the tests draws from it.
    """

    def compare(one: Path, other: Path) -> list[str]:
        ends = [read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, other)]
        found = differences(*({key: end[key] for key in end.keys() - {"callbacks"}} for end in ends))
        return [name for name in found if not name.startswith("/random_states/0/python/")]

    return compare
