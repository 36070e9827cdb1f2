"""What every training run shares: the Experiment protocol, exact resume, run records, guards, progress."""

from zoo.training.checkpoint import AtomicCheckpointIO, CheckpointMetadata, LoadableModule, read_checkpoint
from zoo.training.checkpointed_metrics import CheckpointedMetrics
from zoo.training.experiment import Experiment
from zoo.training.extension import extend_config
from zoo.training.finite import FiniteGradients, NonFiniteError, sum_losses
from zoo.training.fit import Loaders, fit
from zoo.training.folder_lock import folder_lock
from zoo.training.interrupt import GracefulInterrupt, TrainingInterruptedError
from zoo.training.memory import tune_malloc
from zoo.training.metrics_csv import CSVMetricsLogger, read_metrics
from zoo.training.progress import TrainingProgress
from zoo.training.record import RunRecord, config_hash, read_status, run_environment
from zoo.training.resume import ExactResume
from zoo.training.variance_monitor import GradientVarianceMonitor
from zoo.training.writing import write_json, write_text

__all__ = [
    "AtomicCheckpointIO",
    "CSVMetricsLogger",
    "CheckpointMetadata",
    "CheckpointedMetrics",
    "ExactResume",
    "Experiment",
    "FiniteGradients",
    "GracefulInterrupt",
    "GradientVarianceMonitor",
    "LoadableModule",
    "Loaders",
    "NonFiniteError",
    "RunRecord",
    "TrainingInterruptedError",
    "TrainingProgress",
    "config_hash",
    "extend_config",
    "fit",
    "folder_lock",
    "read_checkpoint",
    "read_metrics",
    "read_status",
    "run_environment",
    "sum_losses",
    "tune_malloc",
    "write_json",
    "write_text",
]
