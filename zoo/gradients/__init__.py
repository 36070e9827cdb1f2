"""REINFORCE with a baseline, for anything that can be sampled."""

from zoo.gradients.baselines import (
    Baseline,
    BaselineOutput,
    Constant,
    Learned,
    LeaveOneOut,
    MovingAverage,
    Sum,
)
from zoo.gradients.named import BASELINES, named_baseline
from zoo.gradients.reinforce import Reinforce, ReinforceOutput, score_function_loss
from zoo.gradients.running import RunningScale

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineOutput",
    "Constant",
    "Learned",
    "LeaveOneOut",
    "MovingAverage",
    "Reinforce",
    "ReinforceOutput",
    "RunningScale",
    "Sum",
    "named_baseline",
    "score_function_loss",
]
