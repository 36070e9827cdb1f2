"""The wider family of estimators."""

from zoo.gradients.estimators.vimco import LeaveOneOutBound, leave_one_out_bounds, multi_sample_bound

__all__ = ["LeaveOneOutBound", "leave_one_out_bounds", "multi_sample_bound"]
