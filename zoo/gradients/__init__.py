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
from zoo.gradients.graphs import (
    BaselineWithContext,
    Graph,
    Pathwise,
    StochasticGraph,
    expected_cost,
    trace,
)
from zoo.gradients.named import BASELINES, named_baseline
from zoo.gradients.reinforce import Reinforce, ReinforceOutput, score_function_loss
from zoo.gradients.running import RunningScale
from zoo.gradients.variance import GradientMoments, Moments, exact_moments, gradient_moments, optimal_baseline

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineOutput",
    "BaselineWithContext",
    "Constant",
    "GradientMoments",
    "Graph",
    "Learned",
    "LeaveOneOut",
    "Moments",
    "MovingAverage",
    "Pathwise",
    "Reinforce",
    "ReinforceOutput",
    "RunningScale",
    "StochasticGraph",
    "Sum",
    "exact_moments",
    "expected_cost",
    "gradient_moments",
    "named_baseline",
    "optimal_baseline",
    "score_function_loss",
    "trace",
]
