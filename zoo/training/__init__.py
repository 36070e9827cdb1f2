"""What every training run shares: the Experiment protocol, exact resume, run records, guards, progress."""

from zoo.training.checkpoint import LoadableModule, read_checkpoint
from zoo.training.experiment import Experiment
from zoo.training.extension import extend_config
from zoo.training.finite import NonFiniteError, sum_losses
from zoo.training.fit import Loaders, fit
from zoo.training.interrupt import TrainingInterruptedError
from zoo.training.memory import tune_malloc
from zoo.training.metrics_csv import read_metrics
from zoo.training.record import config_hash, read_status, run_environment
from zoo.training.variance_monitor import GradientVarianceMonitor
from zoo.training.writing import write_json

__all__ = [
    "Experiment",
    "GradientVarianceMonitor",
    "LoadableModule",
    "Loaders",
    "NonFiniteError",
    "TrainingInterruptedError",
    "config_hash",
    "extend_config",
    "fit",
    "read_checkpoint",
    "read_metrics",
    "read_status",
    "run_environment",
    "sum_losses",
    "tune_malloc",
    "write_json",
]
