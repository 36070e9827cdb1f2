from dataclasses import replace

import gymnasium
import jaxtyping
import pytest
import torch
from gymnasium.wrappers import FlattenObservation, TransformReward

from zoo.control.envs._bellman import backup
from zoo.control.envs.mdp import FiniteMDP, known_dynamics
from zoo.control.envs.planning import optimal_mean_return


@pytest.fixture
def lake():
    return FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)


class Exposing(gymnasium.Env):
    """Environment of two states and one action with the given dynamics."""

    def __init__(self, outcomes):
        self.P = {0: {0: outcomes}, 1: {0: [(1.0, 1, 0.0, True)]}}
        self.initial_state_distrib = [1.0, 0.0]


class TestFromGymnasium:
    def test_every_entry_equals_the_listed_one(self, lake):
        dynamics = gymnasium.make("FrozenLake-v1").unwrapped.P
        for state, action in torch.cartesian_prod(torch.arange(16), torch.arange(4)).tolist():
            for next_state in range(16):
                listed = [entry for entry in dynamics[state][action] if entry[1] == next_state]
                place = state, action, next_state
                assert lake.transition[place] == pytest.approx(sum(entry[0] for entry in listed))
                assert lake.terminated[place] == any(entry[3] for entry in listed)
                assert lake.reward[place] == (listed[0][2] if listed else 0)

    def test_outcomes_with_the_same_next_state_are_merged_and_their_rewards_averaged(self):
        outcomes = [(0.25, 1, 1.0, False), (0.25, 1, 3.0, False), (0.5, 0, 8.0, False)]
        mdp = FiniteMDP.from_gymnasium(Exposing(outcomes), gamma=0.5)
        assert mdp.transition[0, 0].tolist() == [0.5, 0.5]
        assert mdp.reward[0, 0].tolist() == [8.0, 2.0]
        assert mdp.horizon is None

    @pytest.mark.parametrize(
        ("name", "horizon"), [("FrozenLake-v1", 100), ("FrozenLake8x8-v1", 200), ("CliffWalking-v1", None)]
    )
    def test_horizon_is_the_registered_time_limit(self, name, horizon):
        assert FiniteMDP.from_gymnasium(gymnasium.make(name), gamma=1.0).horizon == horizon

    def test_initial_distribution_is_that_of_the_environment_or_the_argument(self):
        taxi = gymnasium.make("Taxi-v4")
        assert (
            FiniteMDP.from_gymnasium(taxi, gamma=1.0).initial > 0
        ).sum() == 300  # 25 positions, 4 × 3 passenger tasks
        anywhere = torch.full((500,), 1 / 500, dtype=torch.float64)
        assert torch.equal(FiniteMDP.from_gymnasium(taxi, gamma=1.0, initial=anywhere).initial, anywhere)

    def test_environment_without_dynamics_raises_with_its_name(self):
        with pytest.raises(ValueError, match="CartPole-v1 does not expose its dynamics"):
            FiniteMDP.from_gymnasium(gymnasium.make("CartPole-v1"), gamma=0.99)

    def test_environment_without_initial_distribution_raises(self):
        environment = Exposing([(1.0, 1, 0.0, True)])
        del environment.initial_state_distrib
        with pytest.raises(ValueError, match="pass initial"):
            FiniteMDP.from_gymnasium(environment, gamma=0.99)

    def test_transition_that_terminates_only_sometimes_raises(self):
        with pytest.raises(ValueError, match="terminates after some, but not all, occurrences"):
            FiniteMDP.from_gymnasium(Exposing([(0.5, 1, 0.0, True), (0.5, 1, 0.0, False)]), gamma=0.99)


class TestInvalidMDP:
    @pytest.mark.parametrize("gamma", [-0.1, 1.1])
    def test_gamma_outside_its_range_raises(self, lake, gamma):
        with pytest.raises(ValueError, match="gamma must lie between 0 and 1"):
            replace(lake, gamma=gamma)

    @pytest.mark.parametrize("name", ["transition", "initial"])
    @pytest.mark.parametrize("spoil", [lambda p: p * 0.9, lambda p: p.roll(1, -1) * 2 - p], ids=["sum", "sign"])
    def test_invalid_probabilities_raise(self, lake, name, spoil):
        with pytest.raises(ValueError, match=f"probabilities in {name}"):
            replace(lake, **{name: spoil(getattr(lake, name))})

    def test_mismatched_shapes_raise(self, lake, monkeypatch):
        monkeypatch.setattr(
            jaxtyping.config, "jaxtyping_disable", True
        )  # the check of shapes in tests would fail first
        with pytest.raises(ValueError, match="must have shape"):
            replace(lake, reward=lake.reward[:, :3])

    def test_infinite_reward_raises(self, lake):
        with pytest.raises(ValueError, match="reward must be finite"):
            replace(lake, reward=lake.reward / 0)

    def test_horizon_of_zero_raises(self, lake):
        with pytest.raises(ValueError, match="at least 1 step"):
            replace(lake, horizon=0)


def test_termination_depends_on_the_transition_not_on_the_next_state():
    """The taxi may drive through its final state, but the step that delivers the passenger terminates."""
    taxi = FiniteMDP.from_gymnasium(gymnasium.make("Taxi-v4"), gamma=1.0)
    state, action, next_state = taxi.terminated.nonzero()[0].tolist()
    assert not taxi.terminated[next_state].all()
    assert backup(taxi, torch.full((500,), 1000.0, dtype=torch.float64))[state, action] == 20


@pytest.mark.parametrize("name", ["FrozenLake-v1", "CliffWalking-v1"])
def test_dynamics_are_known_through_transparent_wrappers(name):
    assert known_dynamics(FlattenObservation(gymnasium.make(name)), 0.9).num_states in (16, 48)


@pytest.mark.parametrize(
    "env",
    [
        TransformReward(gymnasium.make("FrozenLake-v1"), lambda reward: 2 * reward),
        gymnasium.make("Taxi-v4", fickle_passenger=True),
        gymnasium.make("Blackjack-v1"),
    ],
    ids=["another reward", "a passenger that P does not tell of", "no P"],
)
def test_dynamics_are_unknown_if_p_is_incomplete(env):
    assert known_dynamics(env, 0.9) is None
    assert optimal_mean_return(env) is None


def test_optimal_mean_return_of_taxi_is_below_its_reward_threshold():
    taxi = gymnasium.make("Taxi-v4")
    assert optimal_mean_return(taxi) == pytest.approx(7.93)
    assert taxi.spec.reward_threshold == 8
