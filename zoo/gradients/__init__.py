"""REINFORCE with a baseline, for anything that can be sampled."""

from zoo.gradients.baselines import (
    BASELINES,
    Baseline,
    BaselineOutput,
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    SumBaseline,
    make_baseline,
)
from zoo.gradients.control_variates import ControlVariate, optimal_scaling
from zoo.gradients.graphs import (
    BaselineWithContext,
    Graph,
    Pathwise,
    StochasticGraph,
    expected_cost,
    trace,
)
from zoo.gradients.reinforce import Reinforce, ReinforceOutput, score_function_loss
from zoo.gradients.running import RunningMean, RunningStd
from zoo.gradients.testing import BiasCheck, check_unbiased
from zoo.gradients.variance import (
    GradientMoments,
    Moments,
    RunningMoments,
    exact_moments,
    gradient_moments,
    optimal_baseline,
    per_sample_gradients,
)

__all__ = [
    "BASELINES",
    "Baseline",
    "BaselineOutput",
    "BaselineWithContext",
    "BiasCheck",
    "ConstantBaseline",
    "ControlVariate",
    "GradientMoments",
    "Graph",
    "LearnedBaseline",
    "LeaveOneOutBaseline",
    "Moments",
    "MovingAverageBaseline",
    "Pathwise",
    "Reinforce",
    "ReinforceOutput",
    "RunningMean",
    "RunningMoments",
    "RunningStd",
    "StochasticGraph",
    "SumBaseline",
    "check_unbiased",
    "exact_moments",
    "expected_cost",
    "gradient_moments",
    "make_baseline",
    "optimal_baseline",
    "optimal_scaling",
    "per_sample_gradients",
    "score_function_loss",
    "trace",
]
