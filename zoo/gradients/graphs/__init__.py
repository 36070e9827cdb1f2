"""Stochastic computation graphs: programs whose expected cost is differentiated, by sampling or exactly."""

from zoo.gradients.graphs._baselines import BaselineWithContext
from zoo.gradients.graphs._enumeration import Outcome, expected_cost, outcomes
from zoo.gradients.graphs.program import Graph
from zoo.gradients.graphs.trace import Pathwise, StochasticGraph, trace

__all__ = [
    "BaselineWithContext",
    "Graph",
    "Outcome",
    "Pathwise",
    "StochasticGraph",
    "expected_cost",
    "outcomes",
    "trace",
]
