"""Environments: Gymnasium's vector environments, and finite MDPs with exact solutions."""

from zoo.control.envs._registration import find_spec
from zoo.control.envs._spaces import UnsupportedSpaceError
from zoo.control.envs._wrappers import EnvError
from zoo.control.envs.factory import make_eval_vector_env, make_vector_env
from zoo.control.envs.mdp import FiniteMDP, known_dynamics
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import (
    bellman_residual,
    finite_horizon,
    greedy_policy,
    optimal_mean_return,
    policy_evaluation,
    reachable_states,
    start_value,
    value_iteration,
)
from zoo.control.envs.vector_env import StepResult, VectorEnvAdapter

__all__ = [
    "EnvError",
    "FiniteMDP",
    "MDPVectorEnv",
    "StepResult",
    "UnsupportedSpaceError",
    "VectorEnvAdapter",
    "bellman_residual",
    "find_spec",
    "finite_horizon",
    "greedy_policy",
    "known_dynamics",
    "make_eval_vector_env",
    "make_vector_env",
    "optimal_mean_return",
    "policy_evaluation",
    "reachable_states",
    "start_value",
    "value_iteration",
]
