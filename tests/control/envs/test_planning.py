from dataclasses import replace

import gymnasium
import pytest
import torch

from zoo.control.envs._bellman import backup
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.planning import (
    bellman_residual,
    finite_horizon,
    greedy_policy,
    policy_evaluation,
    reachable_states,
    start_value,
    value_iteration,
)

GAMMAS = (0.9, 0.95, 0.99, 0.999, 1.0)
STILL = {"is_slippery": False}
# Optimal value of the initial state without a time limit, for each gamma.
OPTIMAL = [
    ("FrozenLake-v1", {}, (0.068891, 0.180472, 0.542026, 0.785533, 0.823529)),
    ("FrozenLake8x8-v1", {}, (0.006411, 0.048250, 0.414640, 0.892635, 1.0)),
    ("FrozenLake-v1", STILL, (0.590490, 0.773781, 0.950990, 0.995010, 1.0)),  # γ⁵
    ("FrozenLake8x8-v1", STILL, (0.254187, 0.513342, 0.877521, 0.987078, 1.0)),  # γ¹³
    ("CliffWalking-v1", {}, (-7.458134, -9.733158, -12.247898, -12.922285, -13.0)),
    ("CliffWalkingSlippery-v1", {}, (-9.936417, -18.756831, -46.352672, -62.412261, -64.709176)),
    ("Taxi-v4", {}, (-1.263323, 1.729930, 6.327464, 7.759898, 7.93)),
    ("Taxi-v4", {"is_rainy": True}, (-3.763147, -1.910009, 2.247629, 3.767907, 3.954575)),
]


@pytest.fixture(scope="module")
def known():
    """Return a registered environment as an MDP, cached: ``known("Taxi-v4", gamma=0.9)``."""
    read = {}

    def mdp(name, gamma=0.99, **options):
        key = name, *options.items()
        if key not in read:
            read[key] = FiniteMDP.from_gymnasium(gymnasium.make(name, **options), gamma)
        return replace(read[key], gamma=gamma)

    return mdp


@pytest.fixture
def corridor():
    """Corridor of four states with reward 1 at its right end and 0 at its left end; steps may slip."""
    transition = torch.zeros(4, 2, 4, dtype=torch.float64)
    for state in range(4):
        for action, side in enumerate((-1, 1)):
            transition[state, action, max(state - 1, 0)] += 0.8 if side < 0 else 0.2
            transition[state, action, min(state + 1, 3)] += 0.8 if side > 0 else 0.2
    ends = torch.tensor([True, False, False, True]).expand(4, 2, 4)
    reward = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64).expand(4, 2, 4)
    initial = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    return FiniteMDP(transition, reward, ends, initial, gamma=0.9, horizon=3)


class TestValueIteration:
    @pytest.mark.parametrize(("name", "options", "values"), OPTIMAL)
    def test_value_iteration_returns_published_optimal_values(self, known, name, options, values):
        for gamma, value in zip(GAMMAS, values, strict=True):
            mdp = known(name, gamma, **options)
            assert start_value(mdp, value_iteration(mdp).amax(-1)).item() == pytest.approx(value, abs=5e-7)

    def test_value_iteration_leaves_no_bellman_residual(self, corridor):
        optimal = value_iteration(corridor)
        assert bellman_residual(corridor, optimal) < 1e-11
        spoiled = optimal.clone()
        spoiled[2, 1] += 0.5
        assert bellman_residual(corridor, spoiled) == pytest.approx(0.5)

    def test_value_iteration_raises_if_it_does_not_converge(self, corridor):
        endless = replace(corridor, gamma=1.0, terminated=torch.zeros(4, 2, 4, dtype=torch.bool))
        with pytest.raises(ValueError, match="did not converge in 100 sweeps"):
            value_iteration(endless, max_sweeps=100)

    def test_greedy_policy_of_optimal_values_attains_them_and_no_policy_exceeds_them(self, corridor):
        optimal = value_iteration(corridor)
        values = policy_evaluation(corridor, greedy_policy(optimal))
        torch.testing.assert_close(values, optimal.amax(-1))
        deterministic = torch.eye(2, dtype=torch.float64)[torch.cartesian_prod(*[torch.arange(2)] * 4)]
        others = torch.stack([policy_evaluation(corridor, policy) for policy in deterministic])
        torch.testing.assert_close(others.amax(0), values)
        assert (others.amin(0) < values - 0.1).all()


class TestPolicyEvaluation:
    @pytest.mark.parametrize("gamma", [0.5, 1.0])
    def test_policy_evaluation_equals_a_long_finite_horizon(self, corridor, gamma):
        mdp = replace(corridor, gamma=gamma, horizon=2000)
        policy = torch.rand(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
        torch.testing.assert_close(policy_evaluation(mdp, policy), finite_horizon(mdp, policy)[-1])

    def test_policy_evaluation_raises_if_an_episode_may_never_end(self, known):
        lake = known("FrozenLake-v1", gamma=1.0, **STILL)
        always_left = torch.eye(4, dtype=torch.float64)[0].expand(16, 4)
        with pytest.raises(ValueError, match="never ends the episode"):
            policy_evaluation(lake, always_left)
        assert policy_evaluation(replace(lake, gamma=0.99), always_left)[0] == 0


class TestTies:
    def test_tied_actions_share_the_probability(self):
        values = torch.tensor([[1.0, 1.0 - 1e-12, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
        assert greedy_policy(values).tolist() == [[0.5, 0.5, 0.0], [1 / 3] * 3]

    def test_taking_the_first_of_tied_actions_loops_forever(self, known):
        """With γ = 1 all detours are optimal without slipping; random ties reach the goal, first ones do not."""
        lake = known("FrozenLake-v1", gamma=1.0, **STILL)
        optimal = value_iteration(lake)
        assert policy_evaluation(lake, greedy_policy(optimal))[0] == pytest.approx(1)
        first = torch.eye(4, dtype=torch.float64)[optimal.argmax(-1)]
        assert finite_horizon(lake, first)[-1, 0] == 0


class TestFiniteHorizon:
    @pytest.mark.parametrize(
        ("name", "best", "stationary"),
        [
            ("FrozenLake-v1", 0.744190, {0.9: 0.729770, 0.95: 0.729770, 0.99: 0.740164, 0.999: 0.740164}),
            ("FrozenLake8x8-v1", 0.913220, {0.99: 0.862960, 0.999: 0.885650}),
            ("Taxi-v4", 7.93, {0.99: 7.93}),
        ],
    )
    def test_finite_horizon_returns_known_values_under_time_limits(self, known, name, best, stationary):
        mdp = known(name, gamma=1.0)
        assert start_value(mdp, finite_horizon(mdp)[-1]).item() == pytest.approx(best, abs=5e-7)
        for gamma, value in stationary.items():
            policy = greedy_policy(value_iteration(known(name, gamma)))
            assert start_value(mdp, finite_horizon(mdp, policy)[-1]).item() == pytest.approx(value, abs=5e-6)

    def test_finite_horizon_by_hand(self, corridor):
        values = finite_horizon(corridor)
        assert values.shape == (4, 4)
        assert values[0].tolist() == [0, 0, 0, 0]
        assert values[1, 1:3].tolist() == pytest.approx([0, 0.8])
        assert values[2, 1:3].tolist() == pytest.approx([0.8 * 0.9 * 0.8, 0.8])
        assert values[3, 2].item() == pytest.approx(0.8 + 0.2 * 0.9 * 0.576)

    def test_finite_horizon_raises_without_a_horizon(self, corridor):
        with pytest.raises(ValueError, match="no horizon"):
            finite_horizon(replace(corridor, horizon=None))


def test_reachable_states_exclude_those_after_termination(known):
    assert (~reachable_states(known("FrozenLake-v1"))).nonzero().flatten().tolist() == [
        5,
        7,
        11,
        12,
        15,
    ]  # holes and goal
    assert reachable_states(known("CliffWalking-v1")).sum() == 37  # without cliff and goal
    assert reachable_states(known("Taxi-v4")).sum() == 400  # without delivered passengers


def test_backup_equals_a_computation_by_hand(corridor):
    values = torch.tensor([9.0, 1.0, 2.0, 9.0], dtype=torch.float64)
    assert backup(corridor, values)[1].tolist() == pytest.approx([0.2 * 0.9 * 2, 0.8 * 0.9 * 2])
    assert backup(corridor, values)[2].tolist() == pytest.approx([0.8 * 0.9 + 0.2, 0.2 * 0.9 + 0.8])
