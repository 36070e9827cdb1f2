import gymnasium
import pytest
import torch

from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.planning import value_iteration
from zoo.control.envs.vector_env import Environments, make_environments
from zoo.control.evaluators import NEARLY, ExactScore, PlayedScore
from zoo.control.q_learning.exploration import ExploringPolicy
from zoo.control.q_learning.q_functions import QNetwork, QTable


@pytest.fixture
def score():
    return ExactScore(FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99))


def table(values):
    policy = ExploringPolicy(QTable(*values.shape), values.shape[1], "epsilon_greedy", strength=0.1)
    policy.q.values.data.copy_(values)
    return policy


class TestExactScore:
    def test_of_the_best_values_is_the_best_there_is(self, score):
        figures = score.measure(table(value_iteration(score.mdp)), seed=0)
        assert figures["start_value"] == pytest.approx(0.542026, abs=1e-6)
        assert figures["start_value_gap"] == pytest.approx(0, abs=1e-9)
        assert figures["q_distance"] < 1e-6
        assert figures[score.name] >= score.reward_threshold == pytest.approx(0.542026 - NEARLY, abs=1e-6)

    def test_of_other_values_with_the_same_order_differs_in_the_distance_alone(self, score):
        figures = score.measure(table(value_iteration(score.mdp) + 0.25), seed=0)
        assert figures["start_value_gap"] == pytest.approx(0, abs=1e-9)
        assert figures["q_distance"] == pytest.approx(0.25)

    def test_of_the_opposite_order_is_poor(self, score):
        figures = score.measure(table(-value_iteration(score.mdp)), seed=0)
        assert figures["start_value"] < 0.1 < score.reward_threshold
        assert figures["start_value"] + figures["start_value_gap"] == pytest.approx(0.542026, abs=1e-6)

    def test_leaves_out_states_in_which_nothing_is_asked(self, score):
        values = value_iteration(score.mdp)
        values[15] = 7  # the goal
        assert score.measure(table(values), seed=0)["q_distance"] < 1e-6


class TestPlayedScore:
    def test_plays_greedily_and_exploring(self):
        torch.manual_seed(0)
        score = PlayedScore(Environments(make_environments("CartPole-v1", 40)), decided_by="greedy")
        network = QNetwork((4,), 2)
        last = network.layers[-1]
        last.weight.data.zero_()
        last.bias.data[:] = torch.tensor([1.0, 0.0])  # always to the left: soon over
        policy = ExploringPolicy(network, 2, "epsilon_greedy", strength=1.0)
        figures = score.measure(policy, seed=1)
        assert figures["greedy_return_low"] < figures["greedy_return_mean"] < figures["greedy_return_high"] < 11
        assert 13 < figures["eval_return_low"] < figures["eval_return_mean"] < figures["eval_return_high"]
        assert score.name == "greedy_return_mean"
        assert score.reward_threshold == 475
        assert figures == score.measure(policy, seed=1)

    def test_stands_in_for_a_loader_of_one_batch(self):
        score = PlayedScore(Environments(make_environments("CartPole-v1", 4)), decided_by="eval")
        assert len(score) == 1
        assert list(score) == [score]
