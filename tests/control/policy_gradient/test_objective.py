from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import finite_horizon, policy_evaluation, start_value
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient._normalization import normalize
from zoo.control.policy_gradient._value_function import value_function
from zoo.control.policy_gradient.objective import policy_gradient_objective
from zoo.control.policy_gradient.policies import CategoricalPolicy
from zoo.control.rollout import Rollout, collect_rollout
from zoo.gradients import (
    Baseline,
    ConstantBaseline,
    LearnedBaseline,
    LeaveOneOutBaseline,
    MovingAverageBaseline,
    Reinforce,
    SumBaseline,
)

GAMMA = 0.7
LOGITS = [[0.3, -0.2], [-0.5, 0.4], [0.1, 0.8]]


pytestmark = pytest.mark.usefixtures("without_type_checks")


class Table(nn.Module):
    """Network with one row of parameters per state."""

    def __init__(self, rows):
        super().__init__()
        self.rows = nn.Parameter(torch.tensor(rows, dtype=torch.float64))

    def forward(self, state):
        return self.rows[state]


def make_mdp(horizon=None):
    """States 0, 1, 2 in this order, some skipped at random; every episode terminates within three steps at 0."""
    transition = torch.tensor(
        [[[0, 0.6, 0.4], [0, 0.2, 0.8]], [[0.3, 0, 0.7], [0.9, 0, 0.1]], [[1, 0, 0], [1, 0, 0]]], dtype=torch.float64
    )
    reward = torch.arange(18, dtype=torch.float64).reshape(3, 2, 3).sin() * 3 + 1
    terminated = torch.zeros(3, 2, 3, dtype=torch.bool)
    terminated[..., 0] = True
    return FiniteMDP(transition, reward, terminated, torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64), GAMMA, horizon)


def make_policy():
    return CategoricalPolicy(Table(LOGITS), num_actions=2)


def trajectories(mdp, state=None, time=0):
    """Yield every episode with the probability of its transitions, without that of its actions."""
    starts = range(mdp.num_states) if state is None else [state]
    for s, a, next_state in product(starts, range(mdp.num_actions), range(mdp.num_states)):
        probability = (mdp.initial[s] if state is None else 1) * mdp.transition[s, a, next_state]
        if probability == 0:
            continue
        terminated = bool(mdp.terminated[s, a, next_state])
        done = terminated or time + 1 == mdp.horizon
        step = (s, a, mdp.reward[s, a, next_state].item(), next_state, terminated, done)
        for rest, later in [((), 1)] if done else trajectories(mdp, next_state, time + 1):
            yield (step, *rest), probability * later


def rollout_of(*episodes):
    """Return episodes as one rollout, the shorter ones padded with masked steps."""
    filling = (0, 0, 99.0, 0, False, False)
    longest = max(map(len, episodes))
    columns = [[*episode, *[filling] * (longest - len(episode))] for episode in episodes]
    kinds = (torch.int64, torch.int64, torch.float64, torch.int64, torch.bool, torch.bool)
    parts = [
        torch.tensor([[column[t][part] for column in columns] for t in range(longest)], dtype=kind)
        for part, kind in enumerate(kinds)
    ]
    time = torch.arange(longest)[:, None].expand(longest, len(episodes))
    mask = time < torch.tensor([len(episode) for episode in episodes])
    return Rollout(*parts, mask, time)


def probability_of(policy, episode):
    """Return the probability of an episode's actions."""
    probs = policy.net.rows.detach().softmax(-1)
    return torch.stack([probs[step[0], step[1]] for step in episode]).prod()


def expected_gradient(mdp, baseline, together=1, change=lambda rollout: rollout, **options):
    """Return the expected estimate over all outcomes of ``together`` independent episodes."""
    policy = make_policy()
    reinforce = Reinforce(baseline, maximize=True)
    outcomes = [(episode, weight * probability_of(policy, episode)) for episode, weight in trajectories(mdp)]
    assert sum(weight for _, weight in outcomes) == pytest.approx(1)
    loss = torch.zeros((), dtype=torch.float64)
    for drawn in product(outcomes, repeat=together):
        episodes, weights = zip(*drawn, strict=True)
        rollout = change(rollout_of(*episodes))
        objective = policy_gradient_objective(policy, rollout, reinforce, mdp.gamma, **options)
        loss = loss + torch.stack(weights).prod() * objective.policy_loss
    return -torch.autograd.grad(loss, policy.net.rows)[0]


def exact_gradient(mdp):
    """Return the gradient of the expected discounted return by the Bellman equations."""
    rows = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    policy = rows.softmax(-1)
    values = policy_evaluation(mdp, policy) if mdp.horizon is None else finite_horizon(mdp, policy)[-1]
    return torch.autograd.grad(start_value(mdp, values), rows)[0]


def undiscounted_visits(mdp):
    """Return ``Σ_t Σ_s P(s_t = s) ∇ V^π_t(s)`` through the next action only: each step counts as an initial one."""
    rows = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    policy, frozen = rows.softmax(-1), rows.detach().softmax(-1)
    steps = mdp.horizon or 3
    left, here, objective = finite_horizon(replace(mdp, horizon=steps), frozen), mdp.initial, 0
    for t in range(steps):
        goes_on = mdp.transition * ~mdp.terminated
        worth = (mdp.transition * mdp.reward).sum(-1) + mdp.gamma * goes_on @ left[steps - t - 1]
        objective = objective + (here[:, None] * policy * worth).sum()
        here = torch.einsum("s, sa, sat -> t", here, frozen, goes_on)
    return torch.autograd.grad(objective, rows)[0]


def table(rows):
    return Table([[row] for row in rows])


def exact_values(mdp):
    return table(policy_evaluation(mdp, torch.tensor(LOGITS, dtype=torch.float64).softmax(-1)).tolist())


WRONG = (2.0, -1.0, 3.0)
UNBIASED = {
    "none": (lambda: None, 1),
    "constant": (lambda: ConstantBaseline(1.7), 1),
    "learned": (lambda: LearnedBaseline(table(WRONG)), 1),
    "leave one out": (lambda: LeaveOneOutBaseline(1), 2),
    "learned and leave one out": (lambda: SumBaseline(LearnedBaseline(table(WRONG)), LeaveOneOutBaseline(1)), 2),
}


def equal(one, other):
    return torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def biased(one, other):
    return (one - other).abs().max() > 0.02


class TestExpectedGradient:
    @pytest.mark.parametrize(("baseline", "together"), UNBIASED.values(), ids=UNBIASED)
    def test_gradient_with_discount_weighting_is_exact_with_any_baseline(self, baseline, together):
        mdp = make_mdp()
        ours = expected_gradient(mdp, baseline(), together, discount_weighting=True)
        assert equal(ours, exact_gradient(mdp))
        assert biased(ours, undiscounted_visits(mdp))

    @pytest.mark.parametrize("name", ["none", "constant", "leave one out"])
    def test_truncation_counts_as_termination_without_a_learned_value(self, name):
        (baseline, together), mdp = UNBIASED[name], make_mdp(horizon=2)
        ours = expected_gradient(mdp, baseline(), together, discount_weighting=True)
        assert equal(ours, exact_gradient(mdp))
        assert biased(ours, exact_gradient(make_mdp()))

    def test_wrong_value_after_truncation_biases_the_gradient(self):
        mdp = make_mdp(horizon=2)
        ours = expected_gradient(mdp, LearnedBaseline(table(WRONG)), discount_weighting=True)
        assert biased(ours, exact_gradient(mdp))

    @pytest.mark.parametrize(("baseline", "together"), UNBIASED.values(), ids=UNBIASED)
    def test_gradient_without_discount_weighting_counts_each_step_as_an_initial_one(self, baseline, together):
        mdp = make_mdp()
        ours = expected_gradient(mdp, baseline(), together)
        assert equal(ours, undiscounted_visits(mdp))
        assert biased(ours, exact_gradient(mdp))

    def test_both_gradients_are_equal_without_discounting(self):
        mdp = replace(make_mdp(), gamma=1.0)
        assert equal(expected_gradient(mdp, None), exact_gradient(mdp))
        assert equal(undiscounted_visits(mdp), exact_gradient(mdp))

    def test_gae_lambda_below_1_biases_the_gradient_only_with_a_wrong_value(self):
        mdp, options = make_mdp(), {"gae_lambda": 0.5, "discount_weighting": True}
        assert biased(expected_gradient(mdp, LearnedBaseline(table(WRONG)), **options), exact_gradient(mdp))
        assert equal(expected_gradient(mdp, LearnedBaseline(exact_values(mdp)), **options), exact_gradient(mdp))

    def test_gae_lambda_is_ignored_without_a_learned_value(self):
        gradients = [expected_gradient(make_mdp(), Baseline(), gae_lambda=decay) for decay in (0.3, 1.0)]
        assert equal(*gradients)

    def test_bootstrapping_after_termination_biases_the_gradient(self):
        def forget(rollout):
            return rollout._replace(terminated=torch.zeros_like(rollout.terminated))

        mdp, options = make_mdp(), {"discount_weighting": True}
        ours = expected_gradient(mdp, LearnedBaseline(table(WRONG)), change=forget, **options)
        assert biased(ours, exact_gradient(mdp))

    def test_mean_over_the_own_trajectory_as_baseline_biases_the_gradient(self):
        class OverTime(Baseline):
            def predict(self, signal, context, mask):
                return signal.sum(0) / mask.sum(0)

        ours = expected_gradient(make_mdp(), OverTime(), discount_weighting=True)
        assert biased(ours, exact_gradient(make_mdp()))

    def test_normalized_advantages_bias_the_gradient(self):
        ours = expected_gradient(make_mdp(), None, 2, normalize_advantage=True, discount_weighting=True)
        assert biased(ours, exact_gradient(make_mdp()))

    def test_gradient_of_sampled_episodes_is_exact_within_chance(self):
        """40 rollouts of 300 episodes; t-test of each logit with a false-alarm rate of one in a million."""
        mdp, policy = make_mdp(), make_policy()
        envs = VectorEnvAdapter(MDPVectorEnv(mdp, num_envs=300))
        envs.reset(seed=1)
        torch.manual_seed(1)
        found = []
        for _ in range(40):
            envs.reset()
            rollout = collect_rollout(envs, policy, 10, np.zeros(300, np.int64), complete_episodes=True)
            reinforce = Reinforce(LeaveOneOutBaseline(1), maximize=True)
            loss = policy_gradient_objective(policy, rollout, reinforce, GAMMA, discount_weighting=True).policy_loss
            found.append(-torch.autograd.grad(loss, policy.net.rows)[0][:, 0])
        found = torch.stack(found).numpy()
        exact = exact_gradient(mdp)[:, 0].numpy()
        assert (stats.ttest_1samp(found, exact).pvalue > 1e-6 / 3).all()
        assert (stats.ttest_1samp(found, undiscounted_visits(mdp)[:, 0].numpy()).pvalue < 1e-6).any()


STEP = (0, 1, 2.0, 1, False, False)
CUT, END = (1, 0, 5.0, 2, False, True), (1, 0, 5.0, 2, True, True)


def objective_of(rollout, baseline=None, **options):
    return policy_gradient_objective(make_policy(), rollout, Reinforce(baseline, maximize=True), GAMMA, **options)


class TestEndOfEpisode:
    def test_truncated_step_bootstraps_from_the_learned_value(self):
        rollout = rollout_of((STEP, CUT), (STEP, END))
        returns = objective_of(rollout, LearnedBaseline(table(WRONG))).returns
        torch.testing.assert_close(returns[1], torch.tensor([5 + GAMMA * 3.0, 5]).double())

    def test_last_step_of_a_rollout_bootstraps_from_the_learned_value(self):
        returns = objective_of(rollout_of((STEP,)), LearnedBaseline(table(WRONG))).returns
        assert returns.item() == pytest.approx(2 + GAMMA * -1)

    def test_truncated_step_does_not_bootstrap_without_a_learned_value(self):
        returns = objective_of(rollout_of((STEP, CUT), (STEP, END)), ConstantBaseline(7.0)).returns
        assert returns[1].tolist() == [5, 5]

    def test_bootstrap_is_the_sum_of_running_mean_and_network(self):
        """The running mean of earlier rewards is 5; the network adds 3 in state 2."""
        average = MovingAverageBaseline()
        average(torch.tensor([5.0]))
        returns = objective_of(rollout_of((STEP, CUT)), SumBaseline(average, LearnedBaseline(table(WRONG)))).returns
        assert returns[1].item() == pytest.approx(5 + GAMMA * (5 + 3))

    def test_step_that_is_terminated_and_truncated_does_not_bootstrap(self):
        """``VectorEnvAdapter`` reports it as terminated and done."""
        assert objective_of(rollout_of((END,)), LearnedBaseline(table(WRONG))).returns.item() == 5


class TestLossTerms:
    def test_terms_are_summed_over_time_and_averaged_over_environments(self):
        """Ten copies of an episode have the gradient of one."""
        one, ten = (objective_of(rollout_of(*[(STEP, END)] * count)) for count in (1, 10))
        for name in ("policy_loss", "entropy", "value_loss"):
            torch.testing.assert_close(getattr(one, name), getattr(ten, name))
        longer = objective_of(rollout_of((STEP, STEP, END)))
        assert longer.entropy > one.entropy

    def test_masked_steps_do_not_contribute(self):
        rollout = rollout_of((STEP, END), (END,))
        nonsense = rollout._replace(
            reward=torch.where(rollout.mask, rollout.reward, 1e9), action=torch.where(rollout.mask, rollout.action, 1)
        )
        one, other = (objective_of(x, LearnedBaseline(table(WRONG))) for x in (rollout, nonsense))
        assert (one.policy_loss, one.entropy, one.value_loss) == (other.policy_loss, other.entropy, other.value_loss)

    def test_entropy_is_that_of_the_policy_at_valid_steps(self):
        probs = torch.tensor(LOGITS).double().softmax(-1)
        each = -(probs * probs.log()).sum(-1)
        torch.testing.assert_close(objective_of(rollout_of((STEP, END), (END,))).entropy, each[0] / 2 + each[1])

    def test_higher_return_increases_the_probability_of_its_actions(self):
        policy = make_policy()
        rollout = rollout_of((STEP, END))
        policy_gradient_objective(policy, rollout, Reinforce(maximize=True), GAMMA).policy_loss.backward()
        assert policy.net.rows.grad[0, 1] < 0 < policy.net.rows.grad[0, 0]

    def test_value_loss_fits_the_returns_without_a_gradient_to_the_policy(self):
        policy, value = make_policy(), table(WRONG)
        reinforce = Reinforce(LearnedBaseline(value), maximize=True)
        objective = policy_gradient_objective(policy, rollout_of((STEP, END)), reinforce, GAMMA)
        errors = torch.tensor([2.0 - (2 + GAMMA * 5), -1.0 - 5]).double()
        torch.testing.assert_close(objective.value_loss, errors.square().mean())
        objective.value_loss.backward()
        torch.testing.assert_close(value.rows.grad[:, 0], torch.cat([errors, torch.zeros(1)]))
        assert policy.net.rows.grad is None


class TestValueFunction:
    STATES = torch.arange(3)

    @pytest.mark.parametrize(
        ("baseline", "offset"),
        [
            (lambda net: LearnedBaseline(net), 0),
            (lambda net: SumBaseline(ConstantBaseline(7.0), LearnedBaseline(net)), 7),
            (lambda net: SumBaseline(LearnedBaseline(net), LeaveOneOutBaseline(1)), 0),
        ],
    )
    def test_value_function_excludes_baselines_of_other_samples(self, baseline, offset):
        value = value_function(Reinforce(baseline(table(WRONG))))
        assert value(self.STATES).tolist() == [number + offset for number in WRONG]

    @pytest.mark.parametrize(
        "baseline", [None, ConstantBaseline(1.0), MovingAverageBaseline(), LeaveOneOutBaseline(1)], ids=str
    )
    def test_value_function_is_none_without_a_learned_baseline(self, baseline):
        assert value_function(Reinforce(baseline)) is None


class TestNormalize:
    def test_normalization_is_over_the_batch_and_not_along_an_episode(self):
        advantage, mask = torch.tensor([[0.0, 10.0], [2.0, 12.0]]), torch.ones(2, 2, dtype=torch.bool)
        ours = normalize(advantage, mask)
        assert ours.mean().item() == pytest.approx(0, abs=1e-6)
        assert ours.std(correction=0).item() == pytest.approx(1)
        assert (ours[:, 1] > 0).all()
        assert (ours[:, 0] < 0).all()

    @pytest.mark.parametrize("value", [0.0, 500.0])
    @pytest.mark.parametrize("count", [1, 4])
    def test_equal_advantages_are_not_amplified(self, value, count):
        assert (normalize(torch.full((count, 1), value), torch.ones(count, 1, dtype=torch.bool)) == 0).all()

    def test_equal_advantages_keep_their_sign_without_centering(self):
        assert (
            normalize(torch.full((4, 1), 500.0), torch.ones(4, 1, dtype=torch.bool), center=False).tolist() == [[1]] * 4
        )

    def test_constant_baselines_differ_without_a_learned_value(self):
        """Subtracting the mean of the rollout would make all constants equal."""

        def gradient(baseline):
            policy = make_policy()
            rollout = rollout_of((STEP, END), (END,))
            reinforce = Reinforce(baseline, maximize=True)
            policy_gradient_objective(
                policy, rollout, reinforce, GAMMA, normalize_advantage=True
            ).policy_loss.backward()
            return policy.net.rows.grad

        none, few, many = gradient(None), gradient(ConstantBaseline(3.0)), gradient(ConstantBaseline(9.0))
        assert biased(none, few)
        assert biased(few, many)
        assert (none * many).sum() < 0  # a positive advantage becomes negative under a high baseline

    def test_fully_masked_batch_is_zero(self):
        none = torch.zeros(2, 1, dtype=torch.bool)
        assert (normalize(torch.full((2, 1), float("nan")), none) == 0).all()
