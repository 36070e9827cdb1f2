"""Models that look at a picture through glimpses and learn where to look."""

from zoo.attention.ram.glimpse import GlimpseSensor
from zoo.attention.ram.module import Recognition, RecurrentAttention
from zoo.attention.ram.network import RecurrentAttentionNetwork, Rollout
from zoo.attention.ram.objective import HybridObjective, hybrid_objective

__all__ = [
    "GlimpseSensor",
    "HybridObjective",
    "Recognition",
    "RecurrentAttention",
    "RecurrentAttentionNetwork",
    "Rollout",
    "hybrid_objective",
]
