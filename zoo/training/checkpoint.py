import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

Module = TypeVar("Module", bound=pl.LightningModule)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place, then rename it: a kill at any moment leaves the one before intact.

    The library's own writer goes through the system's temporary folder, from which a rename is a copy when that
    lies on another disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save plain data to ``path``, all or nothing."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(path.name + ".unfinished")
        with open(unfinished, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)


class SelfDescribing(pl.Callback):
    """Write into each checkpoint what it is of: the model's name and the run's configuration, as plain data."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = dict(config)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add name and configuration."""
        checkpoint |= {"model": type(pl_module).__name__, "config": self.config}


def read_checkpoint(path: str | Path, model: str | None = None) -> dict[str, Any]:
    """Read a checkpoint of this project as plain data; no code in it is ever run.

    Args:
        path: a file that a run left in its ``checkpoints`` folder.
        model: name of the class whose checkpoint it must be; None for any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is no checkpoint of this project, or is of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; runs keep theirs as RUN/checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or no checkpoint ({type(error).__name__}); "
            "use the run's other checkpoint or train again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "model"} <= checkpoint.keys():
        raise ValueError(f"{path} is a PyTorch file, but no checkpoint of this project")
    if model is not None and checkpoint["model"] != model:
        raise ValueError(f"{path} is a checkpoint of {checkpoint['model']}, not of {model}")
    return checkpoint


def load_module(kind: type[Module], path: str | Path, **given: Any) -> Module:
    """Read a trained module from a checkpoint, ready to be called.

    Args:
        kind: of the module.
        path: of the checkpoint.
        given: options that take the place of the checkpoint's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another model or version.
    """
    checkpoint = read_checkpoint(path, kind.__name__)
    options = checkpoint["hyper_parameters"]
    # An option that is missing would get its default, and the weights another meaning.
    if differing := options.keys() ^ inspect.signature(kind).parameters.keys():
        raise ValueError(f"{path} is of another version of {kind.__name__}: options {', '.join(sorted(differing))}")
    try:
        module = kind(**{**options, **given})
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path} is of another version of {kind.__name__}, with other layers") from error
    return module.eval()
