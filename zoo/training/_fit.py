import logging
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins.precision import MixedPrecision

from zoo.training._checkpoint import AtomicCheckpointIO, CheckpointMetadata, read_checkpoint
from zoo.training._extension import LENGTH_DEPENDENT, ExtendLRSchedules
from zoo.training._files import check_fields
from zoo.training._finite import FiniteGradients
from zoo.training._interrupt import GracefulInterrupt, TrainingInterruptedError
from zoo.training._memory import tune_malloc
from zoo.training._metrics import CheckpointedMetrics, CSVMetricsLogger, Row
from zoo.training._progress import TrainingProgress
from zoo.training._resume import ExactResume
from zoo.training.experiment import Experiment, Loaders


def allow_clipping(trainer: pl.Trainer) -> None:
    """Allow a trainer in mixed bfloat16 precision to clip gradients of fused optimizers.

    Lightning raises for every mixed precision, since a fused optimizer unscales float16 gradients within its step;
    bfloat16 needs no scaling.
    """
    plugin = trainer.precision_plugin
    if isinstance(plugin, MixedPrecision) and plugin.scaler is None:
        plugin.clip_gradients = super(MixedPrecision, plugin).clip_gradients  # type: ignore[method-assign]


class RunDataModule(pl.LightningDataModule):
    """Creates the batches once Lightning knows the ranks."""

    def __init__(self, loaders: Loaders):
        super().__init__()
        self.loaders = loaders

    def train_dataloader(self) -> Any:
        return self.loaders.train(*self._rank())

    def val_dataloader(self) -> Any:
        return [] if self.loaders.validation is None else self.loaders.validation(*self._rank())

    def _rank(self) -> tuple[int, int]:
        if self.trainer is None:
            raise RuntimeError("batches are available only while a trainer runs")
        return self.trainer.global_rank, self.trainer.world_size


class EpochCheckpoint(ModelCheckpoint):
    """Saves a checkpoint after each epoch, or after those that improve a validation metric.

    One callback for each file: the option ``save_last`` of ``ModelCheckpoint`` skips epochs that are not the best.
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
        """Restore the best metric, also in a run folder that was moved."""
        super().load_state_dict({**state_dict, "dirpath": self.dirpath})


def fit(experiment: Experiment, folder: Path, config: Mapping[str, Any], callbacks: Sequence[pl.Callback] = ()) -> Path:
    """Train the module of an experiment, or resume the training from ``checkpoints/last.ckpt`` in the folder.

    Writes ``metrics.csv``, ``checkpoints/last.ckpt`` and, with a validation metric, ``checkpoints/best.ckpt``.

    Args:
        experiment: module, batches, and validation metric.
        folder: run folder.
        config: the run's configuration; only ``trainer`` and ``logger`` are used here.
        callbacks: callbacks in addition to the experiment's.

    Returns:
        The best checkpoint by the validation metric if there is one, else the last.

    Raises:
        TrainingInterruptedError: the run was interrupted.
        NonFiniteError: a loss or a gradient is NaN or infinite.
        FileNotFoundError: ``best.ckpt`` was saved, but is missing at the end.
        ValueError: there is no epoch to train, devices or precision are invalid, the logger is unknown or not
            installed, or the checkpoint to resume from is damaged or of a module with other options.

    Example:
        >>> import tempfile
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> class Demo(Experiment):
        ...     name, module, monitor, monitor_mode = "demo", BoringModel(), None, "min"
        ...     loaders = Loaders(train=lambda rank, ranks: torch.ones(4, 1, 32), validation=None)
        >>> trainer = {"max_epochs": 1, "accelerator": "cpu", "devices": "1", "precision": "32", "gradient_clip": None}
        >>> config = {"trainer": trainer, "logger": {"name": "csv", "project": "demo"}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fit(Demo(), Path(folder), config).name  # doctest: +NORMALIZE_WHITESPACE
        epoch 1/1
        'last.ckpt'
    """
    module, loaders, settings = experiment.module, experiment.loaders, config["trainer"]
    epochs = settings["max_epochs"] if settings["max_epochs"] is not None else loaders.max_epochs
    if epochs is None or epochs < 1:
        raise ValueError(f"max_epochs must be at least 1, got {epochs}")
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints = folder / "checkpoints"
    last, best = checkpoints / "last.ckpt", checkpoints / "best.ckpt"
    saves_best = experiment.monitor is not None and loaders.validation is not None
    if str(settings["precision"]).startswith("16"):
        raise ValueError("precision 16 scales the loss and skips steps by design; use bf16-mixed or 32-true")
    extended = bool(config.get("extended"))
    rows = _saved_rows(last, module, LENGTH_DEPENDENT if extended else ()) if last.exists() else None
    metrics_csv = CSVMetricsLogger(folder / "metrics.csv", rows)
    # Lightning makes torch search for a CUDA driver in every optimizer step; this takes longer than the step of a small
    # model.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    # Deterministic kernels suffice; filling uninitialized memory only costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    best_checkpoint = EpochCheckpoint(best, experiment.monitor, experiment.monitor_mode)
    tune_malloc()
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    trainer = _make_trainer(
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
            *([ExtendLRSchedules()] if extended else []),
            *experiment.callbacks(),
            *callbacks,
            GracefulInterrupt(last, loaders.supports_mid_epoch_resume),
            *([best_checkpoint] if saves_best else []),
            EpochCheckpoint(last, None),  # after the best checkpoint, whose state it saves
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
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")  # it is resumed
        try:
            trainer.fit(
                module, datamodule=RunDataModule(loaders), ckpt_path=last if last.exists() else None, weights_only=True
            )
        except SystemExit as end:  # raised by Lightning on a second Ctrl-C
            message = "stopped at once, without saving what came after the last checkpoint"
            raise TrainingInterruptedError(message) from end
    if trainer.global_step == 0 and not last.exists():
        raise ValueError("nothing was trained: the run ended before its first step; let it last longer")
    if not saves_best or not best_checkpoint.best_model_path:  # the run ended before its first evaluation
        return last
    if not best.exists():
        raise FileNotFoundError(
            f"{best}, the best checkpoint on the validation data, is gone; the last one is there and can be "
            f"evaluated: zoo evaluate checkpoint={last}"
        )
    return best


def _saved_rows(last: Path, module: pl.LightningModule, may_differ: Sequence[str] = ()) -> dict[int, Row]:
    """Return the rows of ``metrics.csv`` in a checkpoint, after checking that the module can be resumed from it."""
    saved = read_checkpoint(last, type(module).__name__, resumable=True)
    before, now = saved["hyper_parameters"], dict(module.hparams)
    keys = (before.keys() | now.keys()) - set(may_differ)
    if differing := sorted(key for key in keys if before.get(key) != now.get(key)):
        raise ValueError(
            f"{last} cannot be continued: these hyperparameters differ from those of the checkpoint, because the data "
            f"or the code changed: {', '.join(differing)}"
        )
    rows: dict[int, Row] = saved["metrics"]["rows"]
    return rows


def _make_trainer(devices: str, **options: Any) -> pl.Trainer:
    if not re.fullmatch(r"auto|-1|\d+(,\d*)*", devices):
        raise ValueError(f"devices must be auto, a number of them, or indices such as 0,1; got {devices!r}")
    try:
        return pl.Trainer(devices=devices, **options)
    except TypeError as error:  # some choices are wrong on some accelerators only
        raise ValueError(f"devices={devices} is not available here: {error}") from error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"accelerator={options.get('accelerator')} needs a package that is not installed ({error}); take auto, cpu "
            "or gpu"
        ) from error


def extra_loggers(settings: Mapping[str, Any], folder: Path) -> list[Logger]:
    """Return the loggers in addition to ``metrics.csv``."""
    kinds: dict[str, Any] = {
        "tensorboard": lambda: TensorBoardLogger(folder, name="tensorboard", version=""),
        "wandb": lambda: WandbLogger(project=settings["project"], save_dir=folder),
        "mlflow": lambda: MLFlowLogger(  # MLflow no longer writes to the folder that Lightning would choose
            settings["project"],
            tracking_uri=f"sqlite:///{(folder / 'mlflow.db').absolute()}",
            artifact_location=str((folder / "mlflow").absolute()),
        ),
    }
    check_fields(settings, {"name": (str,), "project": (str,)}, "invalid logger", "choose one with logger=NAME")
    if settings["name"] not in ("csv", *kinds):
        raise ValueError(f"there is no logger {settings['name']!r}; choose one of csv, {', '.join(kinds)}")
    if settings["name"] == "csv":
        return []
    try:
        return [kinds[settings["name"]]()]
    except ModuleNotFoundError as error:
        raise ValueError(f"logger={settings['name']} needs its package: pip install {settings['name']}") from error
