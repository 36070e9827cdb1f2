"""Hard attention, learned by REINFORCE: images classified from glimpses, or captioned word by word."""

from zoo.attention.captioning import Captioner, CaptioningExperiment, Captions
from zoo.attention.ram.experiment import RecurrentAttentionExperiment
from zoo.attention.ram.glimpse import GlimpseSensor
from zoo.attention.ram.module import Prediction, RecurrentAttention
from zoo.attention.ram.network import RecurrentAttentionNetwork, Trajectory
from zoo.attention.ram.objective import HybridObjective, hybrid_objective

__all__ = [
    "Captioner",
    "CaptioningExperiment",
    "Captions",
    "GlimpseSensor",
    "HybridObjective",
    "Prediction",
    "RecurrentAttention",
    "RecurrentAttentionExperiment",
    "RecurrentAttentionNetwork",
    "Trajectory",
    "hybrid_objective",
]
