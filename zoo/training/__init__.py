"""What every training run shares: the Experiment protocol, exact resume, run records, guards, progress."""

from zoo.training._checkpoint import LoadableModule, read_checkpoint
from zoo.training._extension import extend_config
from zoo.training._files import write_json
from zoo.training._finite import NonFiniteError, sum_losses
from zoo.training._fit import fit
from zoo.training._interrupt import TrainingInterruptedError
from zoo.training._memory import tune_malloc
from zoo.training._metrics import read_metrics
from zoo.training._record import config_hash, read_status, run_environment
from zoo.training.experiment import Experiment, Loaders
from zoo.training.variance_monitor import GradientVarianceMonitor

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
