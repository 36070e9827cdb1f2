"""The wider family of estimators."""

from zoo.gradients.estimators.vimco import VIMCOBaseline, iwae_bound, leave_one_out_bounds

__all__ = ["VIMCOBaseline", "iwae_bound", "leave_one_out_bounds"]
