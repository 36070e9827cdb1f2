"""Variance of the policy gradient, by baseline."""

from examples.gradient_variance.estimators import Estimator, GradientVariance, default_estimators, variance_table

__all__ = ["Estimator", "GradientVariance", "default_estimators", "variance_table"]
