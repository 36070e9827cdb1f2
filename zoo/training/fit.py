import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from zoo.training.checkpoint import AtomicCheckpointIO, CheckpointMetadata, read_checkpoint
from zoo.training.checkpointed_metrics import CheckpointedMetrics
from zoo.training.extension import LENGTH_DEPENDENT, ExtendLRSchedules
from zoo.training.finite import FiniteGradients
from zoo.training.interrupt import GracefulInterrupt, TrainingInterruptedError
from zoo.training.memory import tune_malloc
from zoo.training.metrics_csv import CSVMetricsLogger, Row
from zoo.training.mixed_precision import allow_clipping
from zoo.training.parts import check_fields
from zoo.training.progress import TrainingProgress
from zoo.training.resume import ExactResume


class Loaders(NamedTuple):
    """Where a run's batches come from: functions of the rank and the number of ranks."""

    train: Callable[[int, int], Iterable[Any]]
    validation: Callable[[int, int], Iterable[Any]] | None
    max_epochs: int | None = None
    """Passes over the training batches where the configuration leaves ``max_epochs`` open."""
    fraction_done: Callable[[], float] | None = None
    """Fraction of the training that is done, where counting batches does not tell."""
    supports_mid_epoch_resume: bool = True
    """Whether a training that was stopped within a pass can go on there, or only between two passes."""
    single_process: bool = False
    """Whether the batches are made on the way, so that several processes would each train a model of its own."""


class RunDataModule(pl.LightningDataModule):
    """Hand the batches to Lightning once it knows the ranks."""

    def __init__(self, loaders: Loaders):
        super().__init__()
        self.loaders = loaders

    def train_dataloader(self) -> Any:
        """Give this rank's training batches."""
        return self.loaders.train(*self._rank())

    def val_dataloader(self) -> Any:
        """Give this rank's validation batches, or none."""
        if self.loaders.validation is None:
            return []
        return self.loaders.validation(*self._rank())

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            raise RuntimeError("batches are handed out only while a trainer runs")
        return self.trainer.global_rank, self.trainer.world_size


class EpochCheckpoint(ModelCheckpoint):
    """Save after each epoch, or after those that better a validation figure.

    One for each file: the library's ``save_last`` skips the epochs that are not the best.
    """

    def __init__(self, path: Path, monitor: str | None, mode: str = "min"):
        super().__init__(
            dirpath=path.parent,
            filename=path.stem,
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the best figure also in a run's folder that was moved."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


def fit(
    module: pl.LightningModule,
    loaders: Loaders,
    folder: Path,
    config: Mapping[str, Any],
    monitor: str | None,
    callbacks: list[pl.Callback] | None = None,
    monitor_mode: str = "min",
) -> Path:
    """Train a module, or go on with the training that left ``checkpoints/last.ckpt`` in the folder.

    Leaves ``metrics.csv``, ``checkpoints/last.ckpt`` and, if validation data choose one, ``checkpoints/best.ckpt``.

    Args:
        module: what to train.
        loaders: its batches.
        folder: the run's folder.
        config: the run's configuration, plain data; ``trainer`` and ``logger`` are read here.
        monitor: the validation figure whose best value marks the best checkpoint; None for no such checkpoint.
        callbacks: of the model's own.
        monitor_mode: ``min`` if the smallest value is the best, ``max`` if the largest is.

    Returns:
        The checkpoint to use: the best on validation data if there is such a one, else the last.

    Raises:
        TrainingInterruptedError: the run was asked to stop.
        NonFiniteError: a loss or a gradient is NaN or infinite.
        ValueError: there is no epoch to train, devices or precision make no sense, or the checkpoint to resume from is
            damaged or of a module with other options.
    """
    settings = config["trainer"]
    epochs = settings["max_epochs"] if settings["max_epochs"] is not None else loaders.max_epochs
    if epochs is None or epochs < 1:
        raise ValueError(f"max_epochs must be at least 1, got {epochs}")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = folder / "checkpoints"
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    chooses = monitor is not None and loaders.validation is not None
    if str(settings["precision"]).startswith("16"):
        raise ValueError("precision 16 scales the loss and skips steps by design; use bf16-mixed or 32-true")
    longer = bool(config.get("extended"))
    rows = rows_so_far(last, module, LENGTH_DEPENDENT if longer else ()) if last.exists() else None
    metrics_csv = CSVMetricsLogger(folder / "metrics.csv", rows)
    # Lightning lets torch look for a driver in every optimiser step, which takes longer than the step of a small model.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    # Deterministic kernels are enough; filling every fresh tensor would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    chosen = EpochCheckpoint(best, monitor, monitor_mode)
    tune_malloc()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = make_trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator=settings["accelerator"],
        devices=settings["devices"],
        precision=settings["precision"],
        gradient_clip_val=settings["gradient_clip"],
        deterministic=True,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if loaders.validation is None else None,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        plugins=[AtomicCheckpointIO()],
        logger=[metrics_csv, *extra_loggers(config["logger"], folder)],
        callbacks=[
            FiniteGradients(),
            TrainingProgress(loaders.fraction_done),
            CheckpointedMetrics(metrics_csv),
            ExactResume(),
            CheckpointMetadata(config),
            *([ExtendLRSchedules()] if longer else []),
            *(callbacks or []),
            GracefulInterrupt(last, loaders.supports_mid_epoch_resume),
            *([chosen] if chooses else []),
            EpochCheckpoint(last, None),  # after the best, whose figure it remembers
        ],
    )
    allow_clipping(trainer)
    if loaders.single_process and trainer.world_size > 1:
        raise ValueError(
            f"devices={settings['devices']} are {trainer.world_size}, and a model that acts in environments trains on "
            "one: set trainer.devices=1, and train another seed on each of the others"
        )
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.num_devices > (cores := os.cpu_count() or 1):
        raise ValueError(f"devices={trainer.num_devices} would start as many processes on {cores} processor cores")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # it is continued
        try:
            trainer.fit(
                module, datamodule=RunDataModule(loaders), ckpt_path=last if last.exists() else None, weights_only=True
            )
        except SystemExit as end:  # how Lightning ends on a Ctrl-C that nobody waited for
            message = "stopped at once, without saving what came after the last checkpoint"
            raise TrainingInterruptedError(message) from end
    if trainer.global_step == 0 and not last.exists():
        raise ValueError("nothing was trained: the run ended before its first step; let it last longer")
    if not chooses or not chosen.best_model_path:  # of a run that ended before its first evaluation
        return last
    if not best.exists():
        raise FileNotFoundError(
            f"{best}, the checkpoint that validation data have chosen, is gone; the last one is there and can be "
            f"measured: zoo evaluate checkpoint={last}"
        )
    return best


def rows_so_far(last: Path, module: pl.LightningModule, may_differ: Sequence[str] = ()) -> dict[int, Row]:
    """Read the rows of ``metrics.csv`` up to a checkpoint, if a training of such a module can go on there."""
    saved = read_checkpoint(last, type(module).__name__, resumable=True)
    before, now = saved["hyper_parameters"], dict(module.hparams)
    keys = (before.keys() | now.keys()) - set(may_differ)
    if differing := sorted(key for key in keys if before.get(key) != now.get(key)):
        raise ValueError(
            f"{last} cannot be continued: the data or the project have changed since, in {', '.join(differing)}"
        )
    rows: dict[int, Row] = saved["metrics"]["rows"]
    return rows


def make_trainer(devices: str, **options: Any) -> pl.Trainer:
    """Make the trainer, or say why there can be none on such devices."""
    try:
        return pl.Trainer(devices=checked_devices(devices), **options)
    except TypeError as error:  # some choices are wrong on some accelerators only
        raise ValueError(f"devices={devices} is no choice here: {error}") from error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"accelerator={options.get('accelerator')} needs a package that is not installed ({error}); take auto, cpu "
            "or gpu"
        ) from error


def checked_devices(devices: str) -> str:
    """Give the choice of devices back if it is one."""
    if not re.fullmatch(r"auto|-1|\d+(,\d*)*", devices):
        raise ValueError(f"devices must be auto, a number of them, or indices such as 0,1; got {devices!r}")
    return devices


def extra_loggers(settings: Mapping[str, Any], folder: Path) -> list[Logger]:
    """Make the logger that was asked for beside ``metrics.csv``.

    Raises:
        ValueError: there is no such logger, or its package is not installed.
    """
    kinds: dict[str, Any] = {
        "tensorboard": lambda: TensorBoardLogger(folder, name="tensorboard", version=""),
        "wandb": lambda: WandbLogger(project=settings["project"], save_dir=folder),
        "mlflow": lambda: MLFlowLogger(  # the folder of files that Lightning would choose is no longer written to
            settings["project"],
            tracking_uri=f"sqlite:///{(folder / 'mlflow.db').absolute()}",
            artifact_location=str((folder / "mlflow").absolute()),
        ),
    }
    check_fields(settings, {"name": (str,), "project": (str,)}, "logger is no choice", "choose one with logger=NAME")
    if settings["name"] not in ("csv", *kinds):
        raise ValueError(f"there is no logger {settings['name']!r}; choose one of csv, {', '.join(kinds)}")
    if settings["name"] == "csv":
        return []
    try:
        return [kinds[settings["name"]]()]
    except ModuleNotFoundError as error:
        raise ValueError(f"logger={settings['name']} needs its package: pip install {settings['name']}") from error
