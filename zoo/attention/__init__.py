"""Hard attention: models that classify images from a sequence of glimpses whose locations are learned by REINFORCE."""

from zoo.attention.ram import (
    GlimpseSensor,
    HybridObjective,
    Prediction,
    RecurrentAttention,
    RecurrentAttentionExperiment,
    RecurrentAttentionNetwork,
    Trajectory,
    hybrid_objective,
)

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
