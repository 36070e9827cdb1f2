import gymnasium
import pytest
from gymnasium.wrappers import FlattenObservation, TransformReward

from zoo.control.envs.dynamics import best_mean_return, known_dynamics


@pytest.mark.parametrize("name", ["FrozenLake-v1", "CliffWalking-v1"])
def test_dynamics_are_known_through_wrappers_that_change_nothing(name):
    assert known_dynamics(FlattenObservation(gymnasium.make(name)), 0.9).states in (16, 48)


@pytest.mark.parametrize(
    "env",
    [
        TransformReward(gymnasium.make("FrozenLake-v1"), lambda reward: 2 * reward),
        gymnasium.make("Taxi-v4", fickle_passenger=True),
        gymnasium.make("Blackjack-v1"),
    ],
    ids=["another reward", "a passenger that P does not tell of", "no P"],
)
def test_dynamics_are_not_known_where_p_is_not_all_there_is(env):
    assert known_dynamics(env, 0.9) is None
    assert best_mean_return(env) is None


def test_best_mean_return_of_taxi_lies_below_its_registered_threshold():
    taxi = gymnasium.make("Taxi-v4")
    assert best_mean_return(taxi) == pytest.approx(7.93)
    assert taxi.spec.reward_threshold == 8
