import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from zoo.control.environments import (
    LONGEST_EPISODE,
    EnvironmentFailure,
    Environments,
    make_environments,
    make_evaluation_environments,
)

MODES = list(AutoresetMode)


class TestMaking:
    def test_takes_the_environments_own_vector_implementation(self):
        assert type(make_environments("CartPole-v1", 3)) is CartPoleVectorEnv

    def test_else_steps_copies_one_after_the_other(self):
        vector = make_environments("Acrobot-v1", 3)
        assert type(vector) is SyncVectorEnv
        assert vector.num_envs == 3

    @pytest.mark.parametrize(("name", "size"), [("FrozenLake-v1", 16), ("Blackjack-v1", 45)])
    def test_flattens_observations_that_are_no_arrays(self, name, size):
        assert Environments(make_environments(name, 2)).observation_shape == (size,)

    def test_cuts_episodes_that_know_no_end_and_no_others(self):
        limits = [make_environments(name, 1).envs[0].spec.max_episode_steps for name in ("CliffWalking-v1", "Taxi-v4")]
        assert limits == [LONGEST_EPISODE, 200]

    @pytest.mark.parametrize(
        ("name", "shape"), [("MinAtar/Breakout-v0", (10, 10, 4)), ("ALE/Pong-v5", (4, 84, 84))], ids=str
    )
    def test_knows_games_as_pictures(self, name, shape):
        environments = Environments(make_environments(name, 2))
        environments.reset(seed=1)
        assert environments.observation_shape == environments.observation.shape[1:] == shape
        assert environments.step(torch.tensor([1, 0])).valid.all()
        assert environments.longest_episode == LONGEST_EPISODE

    def test_clips_the_rewards_of_games_to_learn_from_and_not_to_measure_by(self):
        made = [make("ALE/Pong-v5", 2) for make in (make_environments, make_evaluation_environments)]
        assert [vector.spec.kwargs.get("reward_clipping", True) for vector in made] == [True, False]

    def test_makes_others_alike_to_learn_from_and_to_measure_by(self):
        assert make_evaluation_environments("CartPole-v1", 3).spec == make_environments("CartPole-v1", 3).spec

    def test_says_how_to_install_games(self, monkeypatch):
        monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
        monkeypatch.setattr(gymnasium, "registry", {})
        monkeypatch.setitem(sys.modules, "minatar.gym", None)
        with pytest.raises(ValueError, match=r"the games of MinAtar need a package: pip install -e '.\[games\]'"):
            make_environments("MinAtar/Breakout-v0", 2)

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [("CartPol-v1", "CartPole-v1"), ("CartPole", "CartPole-v1"), ("Taxi-v3", "Taxi-v4"), ("x/Taxi-v4", "Taxi-v4")],
        ids=["mistyped", "no version", "a version that is no more", "of nobody"],
    )
    def test_unknown_environments_are_named_beside_the_nearest(self, name, nearest):
        with pytest.raises(ValueError, match=f"knows no environment '{name}'; the nearest are .*{nearest}"):
            make_environments(name, 2)

    @pytest.mark.parametrize("count", [0, -1])
    def test_makes_one_or_more(self, count):
        with pytest.raises(ValueError, match=f"at least 1 environment to act in, got {count}"):
            make_environments("CartPole-v1", count)

    def test_unknown_ones_that_are_near_nothing_are_named_alone(self):
        with pytest.raises(ValueError, match=r"knows no environment '%%'$"):
            make_environments("%%", 2)

    @pytest.mark.parametrize("kind", [DependencyNotInstalled, ModuleNotFoundError])
    def test_a_missing_package_is_named(self, kind, monkeypatch):
        def fail(*args, **options):
            raise kind("no module named mujoco")

        monkeypatch.setattr(gymnasium, "make_vec", fail)
        with pytest.raises(ValueError, match=r"environment Acrobot-v1 needs a package .*no module named mujoco"):
            make_environments("Acrobot-v1", 2)

    def test_an_environment_that_does_not_say_how_it_resets_is_refused(self):
        vector = CartPoleVectorEnv(2)
        vector.metadata = {}
        with pytest.raises(ValueError, match="CartPoleVectorEnv does not say how it resets"):
            Environments(vector)


def test_knows_its_name_sizes_and_when_the_task_is_solved():
    environments = Environments(make_environments("CartPole-v1", 5))
    assert (environments.name, len(environments), environments.observation_shape) == ("CartPole-v1", 5, (4,))
    assert environments.action_space == Discrete(2)
    assert environments.solved_at == 475
    assert Environments(CartPoleVectorEnv(2)).solved_at is None


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
class TestTheEndOfAnEpisode:
    def play(self, diaries, mode, plan, steps):
        environments = diaries(mode, plan, [(100, "terminated")])
        environments.reset()
        rows = []
        for _ in range(steps):
            before = environments.observation[0].tolist()
            step = environments.step(torch.tensor([1, 1]))
            assert step.valid[1]
            if step.valid[0]:
                rows.append((before, step.following[0].tolist(), step.reward[0], step.terminated[0], step.ended[0]))
        return rows

    def test_shows_its_own_last_observation_and_then_the_first_of_the_next(self, mode, diaries):
        rows = self.play(diaries, mode, [(2, "terminated"), (1, "truncated")], steps=5)
        assert (
            rows[:4]
            == [
                ([0, 0], [0, 1], 11, False, False),
                ([0, 1], [0, 2], 21, True, True),
                ([1, 0], [1, 1], 11, False, True),
                ([2, 0], [2, 1], 11, False, False),
            ][: len(rows)]
        )

    def test_costs_a_step_that_is_not_valid_in_one_mode_alone(self, mode, diaries):
        rows = self.play(diaries, mode, [(2, "terminated")], steps=9)
        assert len(rows) == (6 if mode is AutoresetMode.NEXT_STEP else 9)

    def test_by_termination_wins_over_a_cut_at_the_same_time(self, mode, diaries):
        rows = self.play(diaries, mode, [(1, "both")], steps=1)
        assert rows[0][3:] == (True, True)

    def test_does_not_change_what_was_given_before(self, mode, diaries):
        environments = diaries(mode, [(1, "terminated")])
        environments.reset()
        step = environments.step(torch.tensor([0]))
        environments.step(torch.tensor([0]))
        assert step.following.tolist() == [[0, 1]]


def test_cart_poles_that_step_together_move_as_single_ones():
    """From equal states to the ends of their episodes, which both see at the same step."""
    together, single = make_environments("CartPole-v1", 6), gymnasium.make_vec("CartPole-v1", 6, "sync")
    observation, _ = together.reset(seed=1)
    single.reset(seed=1)
    assert not np.allclose(observation, single._observations)  # their random numbers differ
    for env, state in zip(single.envs, together.state.T, strict=True):
        env.unwrapped.state = state.copy()
    rng, running, ends = np.random.default_rng(0), np.ones(6, bool), 0
    while running.any():
        action = rng.integers(2, size=6)
        ours, theirs = together.step(action), single.step(action)
        for one, other in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_allclose(one[running], other[running], rtol=1e-5, atol=1e-6)
        ends += (running & ours[2]).sum()
        running &= ~(ours[2] | ours[3])
    assert ends == 6


class TestActions:
    def made(self, space):
        class Echo(gymnasium.Env):
            observation_space, action_space = Box(-np.inf, np.inf, (1,)), space

            def reset(self, *, seed=None, options=None):
                return np.zeros(1, np.float32), {}

            def step(self, action):
                assert space.contains(action)
                return np.full(1, np.sum(action), np.float32), 0.0, False, False, {}

        environments = Environments(SyncVectorEnv([Echo, Echo]))
        environments.reset()
        return environments

    def test_are_clipped_to_their_bounds(self):
        environments = self.made(Box(-2.0, 2.0, (1,), np.float64))
        assert environments.step(torch.tensor([[-7.0], [1.5]])).following.tolist() == [[-2], [1.5]]

    def test_are_counted_from_the_first_of_the_environment(self):
        environments = self.made(Discrete(3, start=5))
        assert environments.step(torch.tensor([0, 2])).following.tolist() == [[5], [7]]


class TestErrorsWithin:
    class Failing(gymnasium.Env):
        """Its first resets work, as many as it is told."""

        observation_space, action_space = Box(0, 1, (1,)), Discrete(2)

        def __init__(self, resets=0):
            if resets < 0:
                raise OSError("no such world")
            self.resets = resets

        def reset(self, *, seed=None, options=None):
            self.resets -= 1
            if self.resets < 0:
                raise KeyError("door")
            return np.zeros(1, np.float32), {}

        def step(self, action):
            return np.zeros(1, np.float32), 0.0, True, False, {}

    def test_name_the_environment_in_a_step(self):
        environments = Environments(make_environments("CartPole-v1", 2))
        environments.reset(seed=0)
        with pytest.raises(EnvironmentFailure, match="CartPole-v1 raised AssertionError: "):
            environments.step(torch.tensor([7, 7]))

    def test_name_it_in_a_reset(self):
        with pytest.raises(EnvironmentFailure, match="SyncVectorEnv raised KeyError in a reset: 'door'"):
            Environments(SyncVectorEnv([self.Failing])).reset(seed=0)

    def test_name_it_in_the_reset_after_an_episode(self):
        environments = Environments(
            SyncVectorEnv([lambda: self.Failing(resets=1)], autoreset_mode=AutoresetMode.DISABLED)
        )
        environments.reset(seed=0)
        with pytest.raises(EnvironmentFailure, match="SyncVectorEnv raised KeyError in a reset: 'door'"):
            environments.step(torch.tensor([0]))

    def test_name_it_while_it_is_made(self):
        gymnasium.register("Failing-v0", lambda: self.Failing(resets=-1), max_episode_steps=5)
        try:
            with pytest.raises(EnvironmentFailure, match="Failing-v0 raised OSError while it was made: no such world"):
                make_environments("Failing-v0", 2)
        finally:
            del gymnasium.registry["Failing-v0"]


class TestState:
    def play(self, environments, steps):
        rng = np.random.default_rng(7)
        rows = []
        for _ in range(steps):
            step = environments.step(torch.from_numpy(rng.integers(2, size=len(environments))))
            rows.append(np.concatenate([step.following.ravel(), *step[1:], environments.observation.ravel()]))
        return np.stack(rows)

    def test_of_native_environments_is_plain_and_goes_on_bit_for_bit(self, tmp_path):
        """Over several ends of episodes, whose random starts are of the state as well."""
        environments = Environments(make_environments("CartPole-v1", 4))
        environments.reset(seed=1)
        self.play(environments, 30)
        torch.save(environments.state_dict(), tmp_path / "state.pt")
        expected = self.play(environments, 100)
        other = Environments(make_environments("CartPole-v1", 4))
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert np.array_equal(self.play(other, 100), expected)
        other.reset(seed=2)
        assert not np.array_equal(self.play(other, 100), expected)

    def test_does_not_change_as_the_environments_go_on(self, differences):
        environments = Environments(make_environments("CartPole-v1", 4))
        environments.reset(seed=1)
        self.play(environments, 20)
        state, again = environments.state_dict(), environments.state_dict()
        self.play(environments, 20)
        assert differences(state, again) == []
        assert differences(state, environments.state_dict()) != []

    def test_is_unknown_of_environments_within_others(self):
        environments = Environments(make_environments("Acrobot-v1", 2))
        environments.reset()
        assert not environments.remembers
        assert environments.state_dict() is None
