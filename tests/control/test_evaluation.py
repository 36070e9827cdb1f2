import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from scipy import stats
from torch import nn

from zoo.control.envs.vector_env import EnvironmentFailure, Environments, make_environments
from zoo.control.evaluation import Evaluator, estimate, first_returns
from zoo.control.policy_gradient.policies import make_policy

MODES = list(AutoresetMode)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    return make_policy((4,), 2, (8,))


@pytest.fixture
def evaluator():
    return Evaluator(Environments(make_environments("CartPole-v1", 40)))


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_takes_the_first_episode_of_each_environment_without_discount(mode, diaries):
    """Not the first to end: in the time of the long ones there are many short ones."""
    plans = [[(1, "terminated"), (9, "terminated")], [(7, "truncated")], [(3, "both")], [(2, "terminated")]]
    always_left = make_policy((2,), 2, ())
    always_left.net[-1].bias.data[:] = torch.tensor([1e3, 0])
    returns = first_returns(diaries(mode, *plans), always_left, seed=0)
    assert returns.tolist() == [10, 280, 60, 30]


class TestMeasuring:
    def test_half_of_the_episodes_is_greedy(self, evaluator, policy):
        """A policy that would rather go left, but not by much: greedily it falls at once."""
        nn.init.zeros_(policy.net[-1].weight)
        policy.net[-1].bias.data[:] = torch.tensor([0.1, 0])
        measured = evaluator.measure(policy, seed=1)
        assert measured.greedy.high < 11 < 13 < measured.stochastic.mean
        assert measured.stochastic.low < measured.stochastic.mean < measured.stochastic.high

    def test_follows_from_the_seed_alone(self, evaluator, policy):
        first = evaluator.measure(policy, seed=1)
        torch.manual_seed(99)
        assert evaluator.measure(policy, seed=1) == first
        assert evaluator.measure(policy, seed=2) != first

    def test_leaves_the_global_random_state_alone(self, evaluator, policy):
        torch.manual_seed(3)
        np.random.seed(3)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        evaluator.measure(policy, seed=1)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.array_equal(np.random.get_state()[1], before[1])

    @pytest.mark.parametrize("training", [True, False])
    def test_does_not_change_the_policy(self, training, evaluator, policy):
        policy.train(training)
        before = copy.deepcopy(policy)
        evaluator.measure(policy, seed=1)
        assert policy.training is training
        assert all(torch.equal(x, y) for x, y in zip(policy.parameters(), before.parameters(), strict=True))
        assert all(parameter.grad is None and parameter.requires_grad for parameter in policy.parameters())


class Breaking(gymnasium.Env):
    """Gives zeros for three steps, and at one time something else."""

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


class TestTheTimeItTakes:
    def test_is_limited_and_what_has_not_ended_is_said(self):
        environments = SyncVectorEnv([Breaking, Breaking, Endless, Breaking])
        evaluator = Evaluator(Environments(environments), budget=0.2)
        with pytest.raises(
            EnvironmentFailure,
            match=r"1 of 4 episodes of an evaluation in SyncVectorEnv had not ended after .* given up",
        ):
            evaluator.measure(make_policy((4,), 2, ()), seed=0)

    def test_is_said_when_it_is_long(self, monkeypatch):
        monkeypatch.setattr("zoo.control.evaluation.PATIENCE", 0.0)
        environments = SyncVectorEnv([Breaking] * 4)
        with pytest.warns(UserWarning, match=r"4 of 4 episodes .* given up after 3,600 seconds") as said:
            Evaluator(Environments(environments)).measure(make_policy((4,), 2, ()), seed=0)
        assert len(said) == 1


class TestWhatIsNotFinite:
    def measured(self, *broken):
        environments = SyncVectorEnv([Breaking, Breaking, lambda: Breaking(*broken), Breaking])
        return Evaluator(Environments(environments)).measure(make_policy((4,), 2, ()), seed=0)

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
    def test_is_refused_and_its_place_is_named(self, what, time, place, value):
        with pytest.raises(EnvironmentFailure, match=f"SyncVectorEnv gave {place}, in environment 2 of an evaluation"):
            self.measured(what, time, value)

    def test_does_not_matter_after_the_episode_that_counts(self):
        environments = Environments(SyncVectorEnv([EndsAtOnce, Breaking, Breaking, Breaking]))
        assert first_returns(environments, make_policy((4,), 2, ()), seed=0).tolist() == [0] * 4
        assert environments.ended.all()


class EndsAtOnce(Breaking):
    """Its first episode is one step; what follows is broken."""

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
    def test_are_students(self):
        returns = np.array([3.0, 8.0, 1.0, 9.0, 4.0])
        low, high = stats.t.interval(0.95, 4, loc=5.0, scale=stats.sem(returns))
        assert estimate(returns) == pytest.approx((5.0, low, high))

    def test_hold_the_true_mean_as_often_as_they_say(self):
        """Binomial: 1,000 intervals, and at most one in a million such tests fails."""
        rng = np.random.default_rng(0)
        held = sum(part.low <= 0 <= part.high for part in (estimate(rng.normal(size=6)) for _ in range(1000)))
        assert stats.binomtest(held, 1000, 0.95).pvalue > 1e-6
        assert stats.binomtest(held, 1000, 0.90).pvalue < 1e-6

    def test_end_at_a_bound_that_several_episodes_reached(self):
        """As where a time limit cuts most episodes."""
        estimated = estimate(np.array([500.0] * 97 + [300.0, 450.0, 480.0]))
        assert estimated.low < estimated.mean < estimated.high == 500
        assert estimate(-np.array([500.0] * 97 + [300.0, 450.0, 480.0])).low == -500

    @pytest.mark.parametrize("count", [2, 5])
    def test_need_two_episodes_of_each_kind(self, count):
        with pytest.raises(ValueError, match="an interval needs at least 2 episodes of each kind"):
            Evaluator(Environments(make_environments("CartPole-v1", count)))
