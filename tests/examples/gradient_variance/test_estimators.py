import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from examples.gradient_variance.estimators import (
    Estimator,
    collect_episodes,
    default_estimators,
    estimator_losses,
    fit_value,
    jackknife_variance,
    variance_table,
)
from zoo._stats import log_jackknife_interval
from zoo.control._networks import make_network
from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import finite_horizon, start_value
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.policies import CategoricalPolicy, make_policy
from zoo.control.rollout import Rollout
from zoo.gradients import ConstantBaseline, Reinforce, expected_cost
from zoo.gradients.testing import check_unbiased

GAMMA, STEPS = 0.7, 2
MDP = FiniteMDP(
    transition=torch.tensor([[[0.6, 0.4], [0.2, 0.8]], [[0.3, 0.7], [0.9, 0.1]]], dtype=torch.float64),
    reward=torch.tensor([[[1.0, -2.0], [0.5, 3.0]], [[2.0, 0.0], [-1.0, 4.0]]], dtype=torch.float64),
    terminated=torch.tensor([[[False, True], [False, False]], [[False, False], [True, False]]]),
    initial=torch.tensor([1.0, 0.0], dtype=torch.float64),
    gamma=GAMMA,
    horizon=STEPS,
)
LOGITS = [[0.3, -0.2], [-0.5, 0.4]]
UNBIASED = ("none", "constant", "moving average", "leave-one-out", "V(s)")


@pytest.fixture(autouse=True)
def fast(without_type_checks):
    """No type checks in hundreds of small calls."""


class Table(nn.Module):
    """Network with one row of parameters per state."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.as_tensor(rows, dtype=torch.float64))

    def forward(self, state):
        return self.rows[state]


def play(draw, logits, episodes):
    """Complete episodes in parallel, with a source of random numbers that can be enumerated."""
    state, over = draw("s0", Categorical(MDP.initial.expand(episodes, -1))), torch.zeros(episodes, dtype=torch.bool)
    steps = []
    for t in range(STEPS):
        action = draw(f"a{t}", Categorical(logits=logits[state]))
        next_state = draw(f"s{t + 1}", Categorical(MDP.transition[state, action]))
        done = MDP.terminated[state, action, next_state] | (t == STEPS - 1)
        reward, step_count = MDP.reward[state, action, next_state], torch.full_like(state, t)
        steps.append((state, action, reward, next_state, done, done, ~over, step_count))
        state, over = next_state, over | done
    return Rollout(*(torch.stack(parts) for parts in zip(*steps, strict=True)))


def negative_return(graph, logits):
    """Cost program: minus the discounted return."""
    rollout = play(graph.sample, logits, episodes=1)
    graph.cost("-J", -(rollout.reward * rollout.mask * GAMMA**rollout.step_count).sum())


def check(estimator, episodes=1, change=lambda rollout: rollout):
    """Compare the expected gradient of an estimator with the exact one over all outcomes."""
    policy = CategoricalPolicy(Table(LOGITS), num_actions=2)

    def estimate(program, logits, *, draw):
        rollout = change(play(draw, logits.detach(), episodes))
        return estimator_losses(policy, rollout, [estimator], GAMMA, discount_weighting=True)[0]

    return check_unbiased(estimate, negative_return, policy.net.rows, modules=[estimator.reinforce])


def estimators(value):
    """Return the default estimators, fitted to other episodes."""
    envs = VectorEnvAdapter(MDPVectorEnv(MDP, num_envs=50))
    envs.reset(seed=1)
    torch.manual_seed(1)
    rollouts = list(collect_episodes(CategoricalPolicy(Table(LOGITS), num_actions=2), envs, 2))
    return default_estimators(rollouts, value, GAMMA, gae_lambda=0.5)


WRONG = Table([[2.0], [-1.0]])


class TestExpectedGradient:
    @pytest.mark.parametrize("name", UNBIASED)
    def test_gradient_is_exact_with_any_baseline(self, name):
        result = check(estimators(WRONG)[name], episodes=2 if name == "leave-one-out" else 1)
        assert result.exact
        result.raise_if_biased()

    def test_expected_cost_equals_the_bellman_solution(self):
        logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
        values = finite_horizon(MDP, logits.softmax(-1))[-1]
        torch.testing.assert_close(expected_cost(negative_return, logits), -start_value(MDP, values))

    def test_wrong_value_biases_lambda_returns(self):
        result = check(estimators(WRONG)["V(s), λ = 0.5"])
        assert result.bias.abs().max() > 0.02

    def test_scaled_rewards_bias_the_gradient(self):
        result = check(estimators(WRONG)["V(s)"], change=lambda x: x._replace(reward=x.reward * 0.9))
        assert result.bias.abs().max() > 0.02

    def test_truncation_counts_as_termination_for_every_value(self):
        envs = VectorEnvAdapter(MDPVectorEnv(MDP, num_envs=50))
        policy = CategoricalPolicy(Table(LOGITS), num_actions=2)
        (rollout,) = collect_episodes(policy, envs, 1)
        cut = rollout.done & ~MDP.terminated[rollout.observation, rollout.action, rollout.next_observation]
        assert cut.any()
        assert (rollout.terminated == rollout.done).all()


@pytest.fixture(scope="module")
def cart_pole():
    """Untrained policy, environments, and estimators with a fitted value."""
    torch.manual_seed(0)
    policy, value = make_policy((4,), 2, hidden=[16]), make_network((4,), 1, hidden=[16])
    envs = VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs=8))
    envs.reset(seed=0)
    rollouts = list(collect_episodes(policy, envs, 10))
    fit_value(value, rollouts, gamma=0.98)
    return policy, envs, default_estimators(rollouts, value, gamma=0.98)


class TestVarianceTable:
    def test_baselines_reduce_variance_and_lambda_returns_reduce_it_more(self, cart_pole):
        policy, envs, estimators = cart_pole
        table = variance_table(policy, envs, estimators, num_samples=60, gamma=0.98)
        assert list(table) == [*UNBIASED, "V(s), λ = 0.9"]
        assert table["none"].reduction == (1, 1, 1)
        assert all(table[name].reduction.low > 1 for name in ("constant", "moving average", "V(s)"))
        assert table["V(s), λ = 0.9"].reduction.value > 1.3 * table["V(s)"].reduction.value
        for variance in table.values():
            assert 0 < variance.total.low < variance.total.value < variance.total.high

    def test_bad_constant_increases_variance(self, cart_pole):
        policy, envs, _ = cart_pole
        estimators = {
            name: Estimator(Reinforce(ConstantBaseline(b), maximize=True)) for name, b in (("none", 0), ("bad", 1000))
        }
        table = variance_table(policy, envs, estimators, num_samples=20, gamma=0.98)
        assert table["bad"].reduction.high < 0.1

    def test_policy_is_not_changed(self, cart_pole):
        policy, envs, estimators = cart_pole
        before = {name: x.clone() for name, x in policy.state_dict().items()}
        variance_table(policy, envs, estimators, num_samples=3, gamma=0.98)
        assert all(torch.equal(x, before[name]) for name, x in policy.state_dict().items())
        assert all(parameter.grad is None for parameter in policy.parameters())

    def test_fewer_than_three_samples_raise(self, cart_pole):
        policy, envs, estimators = cart_pole
        with pytest.raises(ValueError, match="at least 3 samples, got 2"):
            variance_table(policy, envs, estimators, num_samples=2, gamma=0.98)


class TestJackknife:
    def test_interval_has_its_nominal_coverage(self):
        """400 samples of 100 numbers; the coverage falls below 0.9 once in 10,000 times."""
        torch.manual_seed(0)
        variance, without = jackknife_variance(torch.randn(100, 400, 1).double())
        intervals = [log_jackknife_interval(variance[i].log(), without[:, i].log()) for i in range(400)]
        held = sum(low < 1 < high for _, low, high in intervals) / 400
        assert 0.9 < held < 0.99

    def test_jackknife_is_the_variance_without_each_sample(self):
        gradients = torch.randn(5, 2, 3).double()
        variance, without = jackknife_variance(gradients)
        assert torch.allclose(variance, gradients.var(0).sum(-1))
        for i in range(5):
            others = torch.cat([gradients[:i], gradients[i + 1 :]])
            assert torch.allclose(without[i], others.var(0).sum(-1))

    def test_interval_of_a_constant_is_a_point(self):
        assert log_jackknife_interval(torch.tensor(math.log(2)), torch.full((9,), 0.5)) == pytest.approx((2, 2, 2))


class TestFitValue:
    def test_value_is_fitted_to_the_returns_of_each_state(self):
        anywhere = replace(MDP, initial=torch.tensor([0.5, 0.5], dtype=torch.float64))
        envs = VectorEnvAdapter(MDPVectorEnv(anywhere, num_envs=4000))
        envs.reset(seed=1)
        torch.manual_seed(1)
        policy, value = CategoricalPolicy(Table(LOGITS), num_actions=2), Table([[0.0], [0.0]])
        (rollout,) = collect_episodes(policy, envs, 1)
        first = rollout._replace(mask=rollout.mask & (rollout.step_count == 0))
        fit_value(value, [first], GAMMA)
        exact_values = finite_horizon(MDP, torch.tensor(LOGITS).double().softmax(-1))[-1]
        assert torch.allclose(value.rows[:, 0], exact_values, atol=0.3)
