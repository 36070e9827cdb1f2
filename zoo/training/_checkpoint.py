import hashlib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from zoo.training._files import check_fields, write_atomically

REQUIRED_FIELDS: Mapping[str, tuple[type, ...]] = {
    "state_dict": (Mapping,),
    "hyper_parameters": (Mapping,),
    "model": (str,),
    "config": (Mapping,),
}
DIGEST = "sha256"
RESUME_FIELDS: Mapping[str, tuple[type, ...]] = {  # needed only to resume a training
    "loops": (Mapping,),
    "callbacks": (Mapping,),
    "optimizer_states": (list,),
    "lr_schedulers": (list,),
    "random_states": (list,),
    "metrics": (Mapping,),
    DIGEST: (str,),
}

Module = TypeVar("Module", bound=pl.LightningModule)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a kill at any moment leaves the previous checkpoint intact.

    Lightning's own writer first writes to the system's temporary folder; if that is on another disk, the final move is
    a copy, which is not atomic.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:

        def write(unfinished: Path) -> None:
            # Without parents=True: if the user removed the run folder, the run should fail, not create it again.
            unfinished.parent.mkdir(exist_ok=True)
            with open(unfinished, "wb") as file:
                torch.save({**checkpoint, DIGEST: _digest(checkpoint)}, file)
                file.flush()
                os.fsync(file.fileno())

        write_atomically(Path(path), write)


class CheckpointMetadata(pl.Callback):
    """Saves the model's class name and the run's configuration in each checkpoint."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = dict(config)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"model": type(module).__name__, "config": self.config}


def read_checkpoint(path: str | Path, model: str | None = None, resumable: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint of this project; no code in it is run.

    Args:
        path: checkpoint file.
        model: class name of the expected model; None for any.
        resumable: whether to check what resuming a training needs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not a checkpoint of this project, or of another model.

    Example:
        >>> read_checkpoint("none.ckpt")
        Traceback (most recent call last):
        FileNotFoundError: there is no checkpoint none.ckpt; a run saves it as RUN/checkpoints/last.ckpt
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}; a run saves it as RUN/checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}); "
            "use the run's other checkpoint or train again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "hyper_parameters", "model"} <= checkpoint.keys():
        raise ValueError(f"{path} is a PyTorch file, but not a checkpoint of this project")
    if resumable:
        problem = f"{path} cannot be continued: it is damaged, or of an older version"
        check_fields(checkpoint, RESUME_FIELDS, problem, "evaluate it, or train again in another folder")
    # torch.load does not verify the checksums of its files: a flipped bit in a weight would go unnoticed.
    saved_digest = checkpoint.pop(DIGEST, None)
    if saved_digest is not None and saved_digest != _digest(checkpoint):
        raise ValueError(
            f"{path} is damaged: its content is not what was saved; use the run's other checkpoint or train again"
        )
    check_fields(checkpoint, REQUIRED_FIELDS, f"{path} is damaged or not a checkpoint of this project", "train again")
    if model is not None and checkpoint["model"] != model:
        raise ValueError(f"{path} is a checkpoint of {checkpoint['model']}, not of {model}")
    return checkpoint


def _digest(content: Any) -> str:
    """Return the SHA-256 of every tensor, number and name in plain data."""
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Any) -> Iterator[Any]:
    """Yield the bytes of plain data; each part is preceded by its type and size, to make different data differ."""
    if isinstance(content, Tensor):
        yield f"{content.dtype} {list(content.shape)}\n".encode()
        yield content.detach().cpu().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(content, Mapping):
        yield f"mapping {len(content)}\n".encode()
        for item in content.items():
            yield from _pieces(item)
    elif isinstance(content, list | tuple):
        yield f"{'list' if isinstance(content, list) else 'tuple'} {len(content)}\n".encode()
        for item in content:
            yield from _pieces(item)
    else:
        text = repr(content)
        yield f"{type(content).__name__} {len(text)} {text}\n".encode()


class LoadableModule(pl.LightningModule):
    """LightningModule with a ``load`` that reads checkpoints of this project.

    Example:
        >>> class Scale(LoadableModule):
        ...     def __init__(self, size: int):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(size))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "last.ckpt"
        ...     content = {"state_dict": Scale(2).state_dict(), "hyper_parameters": {"size": 2}, "model": "Scale"}
        ...     torch.save({**content, "config": {}}, path)
        ...     Scale.load(path).weight.tolist(), read_checkpoint(path)["model"]
        ([1.0, 1.0], 'Scale')
    """

    @classmethod
    def load(cls: type[Module], path: str | Path, **overrides: Any) -> Module:
        """Load a trained module from a checkpoint, in evaluation mode; ``overrides`` replace options of the checkpoint.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of another model or version.
        """
        checkpoint = read_checkpoint(path, cls.__name__)
        options = checkpoint["hyper_parameters"]
        # A missing option would silently get its default value, which the weights may not have been trained with.
        if differing := options.keys() ^ inspect.signature(cls).parameters.keys():
            raise ValueError(f"{path} is of another version of {cls.__name__}: options {', '.join(sorted(differing))}")
        try:
            module = cls(**{**options, **overrides})
            module.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise ValueError(f"{path} is of another version of {cls.__name__}, with other layers") from error
        return module.eval()
