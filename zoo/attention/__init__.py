"""Models that look at a picture through glimpses and learn where to look."""

from zoo.attention.glimpse import GlimpseSensor
from zoo.attention.network import RecurrentAttentionNetwork, Rollout
from zoo.attention.objective import HybridObjective, hybrid_objective
from zoo.attention.recurrent_attention import Recognition, RecurrentAttention

__all__ = [
    "GlimpseSensor",
    "HybridObjective",
    "Recognition",
    "RecurrentAttention",
    "RecurrentAttentionNetwork",
    "Rollout",
    "hybrid_objective",
]
