"""Reinforcement learning: policy gradient, Q-learning, and finite MDPs with exact solutions."""

from zoo.control._evaluation import Evaluation, ReturnEstimate, evaluate_policy
from zoo.control.envs import EnvError, FiniteMDP, VectorEnvAdapter, make_vector_env
from zoo.control.policy import Policy
from zoo.control.policy_gradient import PolicyGradient, make_policy
from zoo.control.q_learning import QLearning
from zoo.control.returns import lambda_returns, reward_to_go
from zoo.control.rollout import Rollout, collect_rollout
from zoo.control.rollout_dataset import RolloutBatch, RolloutDataset
from zoo.control.schedules import Schedule

__all__ = [
    "EnvError",
    "Evaluation",
    "FiniteMDP",
    "Policy",
    "PolicyGradient",
    "QLearning",
    "ReturnEstimate",
    "Rollout",
    "RolloutBatch",
    "RolloutDataset",
    "Schedule",
    "VectorEnvAdapter",
    "collect_rollout",
    "evaluate_policy",
    "lambda_returns",
    "make_policy",
    "make_vector_env",
    "reward_to_go",
]
