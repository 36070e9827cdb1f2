"""What every training run shares: exact resume, run records, guards, progress, the gradient's noise."""

from zoo.training.carried_metrics import CarriedMetrics
from zoo.training.checkpoint import AtomicCheckpointIO, SelfDescribing, load_module, read_checkpoint
from zoo.training.extension import extended
from zoo.training.finite import FiniteGradients, NonFiniteError, total_loss
from zoo.training.fit import Loaders, fit
from zoo.training.folder_lock import folder_lock
from zoo.training.interrupt import Interrupted, StopBetweenSteps
from zoo.training.memory import keep_freed_memory
from zoo.training.metrics_csv import MetricsCsv, read_metrics
from zoo.training.progress import TrainingProgress
from zoo.training.record import RunRecord, circumstances, config_hash, read_status
from zoo.training.resume import ExactResume
from zoo.training.variance_monitor import GradientVarianceMonitor
from zoo.training.writing import write_json, write_text

__all__ = [
    "AtomicCheckpointIO",
    "CarriedMetrics",
    "ExactResume",
    "FiniteGradients",
    "GradientVarianceMonitor",
    "Interrupted",
    "Loaders",
    "MetricsCsv",
    "NonFiniteError",
    "RunRecord",
    "SelfDescribing",
    "StopBetweenSteps",
    "TrainingProgress",
    "circumstances",
    "config_hash",
    "extended",
    "fit",
    "folder_lock",
    "keep_freed_memory",
    "load_module",
    "read_checkpoint",
    "read_metrics",
    "read_status",
    "total_loss",
    "write_json",
    "write_text",
]
