"""Hard attention: models that classify images from a sequence of glimpses whose locations are learned by REINFORCE."""

from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.attention.ram.glimpse import GlimpseSensor
from zoo.attention.ram.module import Prediction, RecurrentAttention
from zoo.attention.ram.network import RecurrentAttentionNetwork, Trajectory
from zoo.attention.ram.objective import HybridObjective, hybrid_objective

__all__ = [
    "GlimpseSensor",
    "HybridObjective",
    "Prediction",
    "RecurrentAttention",
    "RecurrentAttentionExperiment",
    "RecurrentAttentionNetwork",
    "Trajectory",
    "hybrid_objective",
]
