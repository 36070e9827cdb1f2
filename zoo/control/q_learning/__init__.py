"""Q-learning, with a table or a deep network."""

from zoo.control.q_learning.experiment import DeepQLearningExperiment, TabularQLearningExperiment
from zoo.control.q_learning.exploration import ExploringPolicy, boltzmann, epsilon_greedy, proportional
from zoo.control.q_learning.loss import q_learning_target, td_loss, visit_weights
from zoo.control.q_learning.module import QLearning
from zoo.control.q_learning.q_functions import Dueling, QNetwork, QTable
from zoo.control.q_learning.replay_buffer import ReplayBuffer, Transitions

__all__ = [
    "DeepQLearningExperiment",
    "Dueling",
    "ExploringPolicy",
    "QLearning",
    "QNetwork",
    "QTable",
    "ReplayBuffer",
    "TabularQLearningExperiment",
    "Transitions",
    "boltzmann",
    "epsilon_greedy",
    "proportional",
    "q_learning_target",
    "td_loss",
    "visit_weights",
]
