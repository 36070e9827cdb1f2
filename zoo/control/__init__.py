"""Control: exact answers for finite processes, policy gradient, and Q-learning from table to deep network."""

from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import (
    bellman_residual,
    finite_horizon,
    greedy_policy,
    policy_evaluation,
    start_value,
    value_iteration,
)
from zoo.control.envs.vector_env import Environments, make_environments
from zoo.control.envs.wrappers import EnvironmentFailure
from zoo.control.evaluation import Evaluation, Evaluator, ReturnEstimate
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.policy_gradient.objective import PolicyGradientObjective, policy_gradient_objective
from zoo.control.policy_gradient.policies import (
    CategoricalPolicy,
    GaussianPolicy,
    MultiCategoricalPolicy,
    Policy,
    make_policy,
)
from zoo.control.q_learning.exploration import ExploringPolicy, boltzmann, epsilon_greedy, proportional
from zoo.control.q_learning.module import QLearning
from zoo.control.q_learning.q_functions import Dueling, QNetwork, QTable
from zoo.control.q_learning.replay_buffer import Replay
from zoo.control.returns import lambda_return, reward_to_go
from zoo.control.rollout import Rollout, Rollouts, collect
from zoo.control.schedules import Schedule

__all__ = [
    "CategoricalPolicy",
    "Dueling",
    "EnvironmentFailure",
    "Environments",
    "Evaluation",
    "Evaluator",
    "ExploringPolicy",
    "FiniteMDP",
    "GaussianPolicy",
    "MDPVectorEnv",
    "MultiCategoricalPolicy",
    "Policy",
    "PolicyGradient",
    "PolicyGradientObjective",
    "QLearning",
    "QNetwork",
    "QTable",
    "Replay",
    "ReturnEstimate",
    "Rollout",
    "Rollouts",
    "Schedule",
    "bellman_residual",
    "boltzmann",
    "collect",
    "epsilon_greedy",
    "finite_horizon",
    "greedy_policy",
    "lambda_return",
    "make_environments",
    "make_policy",
    "policy_evaluation",
    "policy_gradient_objective",
    "proportional",
    "reward_to_go",
    "start_value",
    "value_iteration",
]
