import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy import stats
from torch import nn

from zoo.control._evaluation import (
    TOLERANCE,
    EpisodeEvaluator,
    ExactEvaluator,
    episode_returns,
    estimate_return,
    evaluate_policy,
)
from zoo.control.envs._wrappers import EnvError
from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.planning import value_iteration
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.policies import make_policy
from zoo.control.q_learning.exploration import ExploringPolicy
from zoo.control.q_learning.q_functions import QNetwork, QTable

MODES = list(AutoresetMode)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return make_policy((4,), 2, (8,))


@pytest.fixture
def envs():
    return VectorEnvAdapter(make_vector_env("CartPole-v1", 40))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_first_episode_of_each_environment_counts_undiscounted(mode, scripted):
    """Not the first episodes to end, which would be the short ones."""
    plans = [[(1, "terminated"), (9, "terminated")], [(7, "truncated")], [(3, "both")], [(2, "terminated")]]
    always_left = make_policy((2,), 2, ())
    always_left.net[-1].bias.data[:] = torch.tensor([1e3, 0])
    returns = episode_returns(always_left, scripted(mode, *plans), seed=0)
    assert returns.tolist() == [10, 280, 60, 30]


class TestEvaluatePolicy:
    def test_half_of_the_episodes_are_greedy(self, envs, policy):
        """A policy with a small preference for the left: the greedy one falls at once."""
        nn.init.zeros_(policy.net[-1].weight)
        policy.net[-1].bias.data[:] = torch.tensor([0.1, 0])
        measured = evaluate_policy(policy, envs, seed=1)
        assert measured.greedy.high < 11 < 13 < measured.stochastic.mean
        assert measured.stochastic.low < measured.stochastic.mean < measured.stochastic.high

    def test_evaluation_depends_on_the_seed_alone(self, envs, policy):
        first = evaluate_policy(policy, envs, seed=1)
        torch.manual_seed(99)
        assert evaluate_policy(policy, envs, seed=1) == first
        assert evaluate_policy(policy, envs, seed=2) != first

    def test_evaluation_does_not_change_the_global_random_state(self, envs, policy):
        torch.manual_seed(3)
        np.random.seed(3)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        evaluate_policy(policy, envs, seed=1)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])

    @pytest.mark.parametrize("training", [True, False])
    def test_evaluation_does_not_change_the_policy(self, training, envs, policy):
        policy.train(training)
        before = copy.deepcopy(policy)
        evaluate_policy(policy, envs, seed=1)
        assert policy.training is training
        assert all(torch.equal(x, y) for x, y in zip(policy.parameters(), before.parameters(), strict=True))
        assert all(parameter.grad is None and parameter.requires_grad for parameter in policy.parameters())


class Breaking(gymnasium.Env):
    """Environment that returns zeros for three steps, with another value at one time."""

    observation_space, action_space = Box(0, 1, (4,)), Discrete(2)

    def __init__(self, what="", time=-1, value=np.nan):
        self.broken, self.value = (what, time), value

    def shown(self, what):
        return self.value if self.broken == (what, self.time) else 0.0

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return np.full(4, self.shown("observation"), np.float32), {}

    def step(self, action):
        self.time += 1
        observation = np.full(4, self.shown("observation"), np.float32)
        return observation, float(self.shown("reward")), self.time >= 3, False, {}


class Endless(Breaking):
    def step(self, action):
        return *super().step(action)[:2], False, False, {}


class TestTimeBudget:
    def test_evaluation_is_aborted_after_the_time_budget(self):
        envs = SyncVectorEnv([Breaking, Breaking, Endless, Breaking])
        with pytest.raises(
            EnvError,
            match=r"1 of 4 episodes of an evaluation in SyncVectorEnv have not ended after .* aborted",
        ):
            evaluate_policy(make_policy((4,), 2, ()), VectorEnvAdapter(envs), seed=0, time_budget=0.2)

    def test_long_evaluation_issues_one_warning(self, monkeypatch):
        monkeypatch.setattr("zoo.control._evaluation._WARN_AFTER", 0.0)
        envs = SyncVectorEnv([Breaking] * 4)
        with pytest.warns(UserWarning, match=r"4 of 4 episodes .* aborted after 3,600 seconds") as said:
            evaluate_policy(make_policy((4,), 2, ()), VectorEnvAdapter(envs), seed=0)
        assert len(said) == 1


class TestNonFiniteValues:
    def measured(self, *broken):
        envs = SyncVectorEnv([Breaking, Breaking, lambda: Breaking(*broken), Breaking])
        return evaluate_policy(make_policy((4,), 2, ()), VectorEnvAdapter(envs), seed=0)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize(
        ("what", "time", "place"),
        [
            ("observation", 0, "an observation that is not finite at the beginning of an episode"),
            ("observation", 2, "an observation that is not finite after step 1 of an episode"),
            ("reward", 1, "a reward that is not finite in step 0 of an episode"),
            ("reward", 3, "a reward that is not finite in step 2 of an episode"),
        ],
    )
    def test_value_that_is_not_finite_raises_with_its_place(self, what, time, place, value):
        with pytest.raises(EnvError, match=f"SyncVectorEnv returned {place}, in environment 2 of an evaluation"):
            self.measured(what, time, value)

    def test_values_after_the_counted_episode_are_ignored(self):
        envs = VectorEnvAdapter(SyncVectorEnv([BrokenAfterFirstEpisode, Breaking, Breaking, Breaking]))
        assert episode_returns(make_policy((4,), 2, ()), envs, seed=0).tolist() == [0] * 4
        assert envs.done.all()


class BrokenAfterFirstEpisode(Breaking):
    """Environment whose first episode has one step, and whose later rewards are not finite."""

    def __init__(self):
        super().__init__("reward", 1)
        self.episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset()

    def step(self, action):
        observation, reward, _, _, _ = super().step(action)
        return observation, reward if self.episodes > 1 else 0.0, True, False, {}


class TestIntervals:
    def test_interval_is_student_t(self):
        returns = np.array([3.0, 8.0, 1.0, 9.0, 4.0])
        low, high = stats.t.interval(0.95, 4, loc=5.0, scale=stats.sem(returns))
        assert estimate_return(returns) == pytest.approx((5.0, low, high))

    def test_interval_has_its_nominal_coverage(self):
        """Binomial test of 1,000 intervals with a false-alarm rate of one in a million."""
        rng = np.random.default_rng(0)
        held = sum(part.low <= 0 <= part.high for part in (estimate_return(rng.normal(size=6)) for _ in range(1000)))
        assert stats.binomtest(held, 1000, 0.95).pvalue > 1e-6
        assert stats.binomtest(held, 1000, 0.90).pvalue < 1e-6

    def test_interval_is_clipped_at_a_shared_extreme(self):
        """Most episodes reach a time limit."""
        estimated = estimate_return(np.array([500.0] * 97 + [300.0, 450.0, 480.0]))
        assert estimated.low < estimated.mean < estimated.high == 500
        assert estimate_return(-np.array([500.0] * 97 + [300.0, 450.0, 480.0])).low == -500

    @pytest.mark.parametrize("count", [2, 5])
    def test_interval_needs_two_episodes_of_each_policy(self, count):
        with pytest.raises(ValueError, match="an evaluation needs an even number of environments, at least 4"):
            evaluate_policy(make_policy((4,), 2, ()), VectorEnvAdapter(make_vector_env("CartPole-v1", count)), seed=0)


@pytest.fixture
def evaluator():
    return ExactEvaluator(FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99))


def table(values):
    policy = ExploringPolicy(QTable(*values.shape), values.shape[1], "epsilon_greedy", parameter=0.1)
    policy.q.values.data.copy_(values)
    return policy


class TestExactEvaluator:
    def test_optimal_values_have_the_optimal_start_value(self, evaluator):
        metrics = evaluator.evaluate(table(value_iteration(evaluator.mdp)), seed=0)
        assert metrics["start_value"] == pytest.approx(0.542026, abs=1e-6)
        assert metrics["start_value_gap"] == pytest.approx(0, abs=1e-9)
        assert metrics["q_distance"] < 1e-6
        assert metrics[evaluator.monitor] >= evaluator.reward_threshold == pytest.approx(0.542026 - TOLERANCE, abs=1e-6)

    def test_shifted_values_differ_in_q_distance_only(self, evaluator):
        metrics = evaluator.evaluate(table(value_iteration(evaluator.mdp) + 0.25), seed=0)
        assert metrics["start_value_gap"] == pytest.approx(0, abs=1e-9)
        assert metrics["q_distance"] == pytest.approx(0.25)

    def test_reversed_values_have_a_poor_start_value(self, evaluator):
        metrics = evaluator.evaluate(table(-value_iteration(evaluator.mdp)), seed=0)
        assert metrics["start_value"] < 0.1 < evaluator.reward_threshold
        assert metrics["start_value"] + metrics["start_value_gap"] == pytest.approx(0.542026, abs=1e-6)

    def test_unreachable_states_are_ignored(self, evaluator):
        values = value_iteration(evaluator.mdp)
        values[15] = 7  # the goal
        assert evaluator.evaluate(table(values), seed=0)["q_distance"] < 1e-6


class TestEpisodeEvaluator:
    def test_evaluator_plays_greedy_and_exploring_episodes(self):
        torch.manual_seed(0)
        evaluator = EpisodeEvaluator(VectorEnvAdapter(make_vector_env("CartPole-v1", 40)), monitor="greedy_return_mean")
        network = QNetwork((4,), 2)
        last = network.layers[-1]
        last.weight.data.zero_()
        last.bias.data[:] = torch.tensor([1.0, 0.0])  # always left, which ends an episode soon
        policy = ExploringPolicy(network, 2, "epsilon_greedy", parameter=1.0)
        metrics = evaluator.evaluate(policy, seed=1)
        assert metrics["greedy_return_low"] < metrics["greedy_return_mean"] < metrics["greedy_return_high"] < 11
        assert 13 < metrics["eval_return_low"] < metrics["eval_return_mean"] < metrics["eval_return_high"]
        assert evaluator.monitor == "greedy_return_mean"
        assert evaluator.reward_threshold == 475
        assert metrics == evaluator.evaluate(policy, seed=1)

    def test_evaluator_is_a_loader_of_one_batch(self):
        evaluator = EpisodeEvaluator(VectorEnvAdapter(make_vector_env("CartPole-v1", 4)), monitor="eval_return_mean")
        assert len(evaluator) == 1
        assert list(evaluator) == [evaluator]
