"""Policy gradient: REINFORCE with any baseline of ``zoo.gradients``."""

from zoo.control.policy import Policy
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.policy_gradient.objective import PolicyGradientObjective, policy_gradient_objective
from zoo.control.policy_gradient.policies import (
    CategoricalPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    action_spec,
    make_policy,
)

__all__ = [
    "CategoricalPolicy",
    "GaussianPolicy",
    "MultiCategoricalPolicy",
    "Policy",
    "PolicyGradient",
    "PolicyGradientExperiment",
    "PolicyGradientObjective",
    "action_spec",
    "make_policy",
    "policy_gradient_objective",
]
