import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiBinary, MultiDiscrete, Sequence, Text, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from zoo.control.envs._registration import MAX_EPISODE_STEPS
from zoo.control.envs._spaces import space_to_dict
from zoo.control.envs._wrappers import EnvError
from zoo.control.envs.factory import make_eval_vector_env, make_vector_env
from zoo.control.envs.vector_env import VectorEnvAdapter

MODES = list(AutoresetMode)


class TestMakeVectorEnv:
    def test_native_vector_implementation_is_used_if_there_is_one(self):
        assert type(make_vector_env("CartPole-v1", 3)) is CartPoleVectorEnv

    def test_copies_step_synchronously_without_a_native_implementation(self):
        vector = make_vector_env("Acrobot-v1", 3)
        assert type(vector) is SyncVectorEnv
        assert vector.num_envs == 3

    @pytest.mark.parametrize(("name", "size"), [("FrozenLake-v1", 16), ("Blackjack-v1", 45)])
    def test_observations_that_are_not_arrays_are_flattened(self, name, size):
        assert VectorEnvAdapter(make_vector_env(name, 2)).observation_shape == (size,)

    def test_only_episodes_without_a_time_limit_get_one(self):
        limits = [make_vector_env(name, 1).envs[0].spec.max_episode_steps for name in ("CliffWalking-v1", "Taxi-v4")]
        assert limits == [MAX_EPISODE_STEPS, 200]

    @pytest.mark.parametrize(
        ("name", "shape"), [("MinAtar/Breakout-v0", (10, 10, 4)), ("ALE/Pong-v5", (4, 84, 84))], ids=str
    )
    def test_games_have_image_observations(self, name, shape):
        envs = VectorEnvAdapter(make_vector_env(name, 2))
        envs.reset(seed=1)
        assert envs.observation_shape == envs.observation.shape[1:] == shape
        assert envs.step(torch.tensor([1, 0])).mask.all()
        assert envs.expected_episode_length is None

    def test_atari_rewards_are_clipped_in_training_and_not_in_evaluation(self):
        made = [make("ALE/Pong-v5", 2) for make in (make_vector_env, make_eval_vector_env)]
        assert [vector.spec.kwargs.get("reward_clipping", True) for vector in made] == [True, False]

    def test_other_environments_are_the_same_in_training_and_evaluation(self):
        assert make_eval_vector_env("CartPole-v1", 3).spec == make_vector_env("CartPole-v1", 3).spec

    def test_missing_game_package_raises_with_install_command(self, monkeypatch):
        monkeypatch.setattr(gymnasium.envs.registration, "registry", {})
        monkeypatch.setattr(gymnasium, "registry", {})
        monkeypatch.setitem(sys.modules, "minatar.gym", None)
        with pytest.raises(ValueError, match=r"the games of MinAtar need a package: pip install -e '.\[games\]'"):
            make_vector_env("MinAtar/Breakout-v0", 2)

    @pytest.mark.parametrize(
        ("name", "nearest"),
        [("CartPol-v1", "CartPole-v1"), ("CartPole", "CartPole-v1"), ("Taxi-v3", "Taxi-v4"), ("x/Taxi-v4", "Taxi-v4")],
        ids=["mistyped", "no version", "a version that is no more", "of nobody"],
    )
    def test_unknown_environment_raises_with_similar_ids(self, name, nearest):
        with pytest.raises(
            ValueError, match=f"no environment '{name}' is registered in Gymnasium; did you mean .*{nearest}"
        ):
            make_vector_env(name, 2)

    @pytest.mark.parametrize(
        ("name", "options", "longest", "limit"),
        [
            ("CartPole-v1", {}, 500, 500),
            ("CartPole-v1", {"max_episode_steps": 7}, 7, 7),
            ("Acrobot-v1", {"max_episode_steps": 7}, 7, 7),
            ("MinAtar/Breakout-v0", {}, MAX_EPISODE_STEPS, None),
            ("ALE/Pong-v5", {}, 27_000, None),
            ("ALE/Pong-v5", {"max_episode_steps": 7}, 7, 7),
            ("PongNoFrameskip-v4", {}, 108_000, None),
        ],
        ids=str,
    )
    def test_time_limit_is_the_registered_or_the_requested_one(self, name, options, longest, limit):
        envs = VectorEnvAdapter(make_vector_env(name, 1, **options))
        assert (envs.max_episode_steps, envs.expected_episode_length) == (longest, limit)

    @pytest.mark.parametrize("name", ["CartPole-v1", "Acrobot-v1", "MinAtar/Breakout-v0", "ALE/Pong-v5"])
    def test_max_episode_steps_truncates_episodes(self, name):
        envs = VectorEnvAdapter(make_vector_env(name, 2, max_episode_steps=3))
        envs.reset(seed=0)
        done = [envs.step(torch.zeros(2, dtype=torch.int64)).done.tolist() for _ in range(3)]
        assert done == [[False] * 2, [False] * 2, [True] * 2]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"wrappers": []}, r"env_kwargs\.wrappers is not an option of an environment"),
            ({"max_episode_steps": -1}, "max_episode_steps must be a whole number of 1 or more, got -1"),
        ],
        ids=str,
    )
    def test_reserved_or_invalid_env_kwargs_raise(self, options, message):
        with pytest.raises(ValueError, match=message):
            make_vector_env("CartPole-v1", 1, **options)

    def test_unknown_keyword_argument_of_an_environment_is_named(self):
        with pytest.raises(EnvError, match=r"FrozenLake-v1 raised TypeError while it was made.*is_slipery"):
            make_vector_env("FrozenLake-v1", 1, is_slipery=False)

    @pytest.mark.parametrize("count", [0, -1])
    def test_num_envs_must_be_positive(self, count):
        with pytest.raises(ValueError, match=f"num_envs must be at least 1, got {count}"):
            make_vector_env("CartPole-v1", count)

    def test_unknown_environment_without_similar_ids_raises(self):
        with pytest.raises(ValueError, match=r"no environment '%%' is registered in Gymnasium$"):
            make_vector_env("%%", 2)

    @pytest.mark.parametrize("kind", [DependencyNotInstalled, ModuleNotFoundError])
    def test_missing_package_of_an_environment_is_named(self, kind, monkeypatch):
        def fail(*args, **options):
            raise kind("no module named mujoco")

        monkeypatch.setattr(gymnasium, "make_vec", fail)
        with pytest.raises(ValueError, match=r"environment Acrobot-v1 needs a package .*no module named mujoco"):
            make_vector_env("Acrobot-v1", 2)

    def test_autoreset_mode_is_read_from_the_environment_before_shared_metadata(self):
        """ale-py 0.12.1 writes its mode into the metadata of the base class of all vector environments."""
        modes = [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP]
        made = [make_vector_env("ALE/Pong-v5", 1, autoreset_mode=mode) for mode in modes]
        assert [VectorEnvAdapter(vector).autoreset_mode for vector in made] == modes
        silent = CartPoleVectorEnv(2)
        silent.metadata = VectorEnv.metadata
        with pytest.raises(ValueError, match="CartPoleVectorEnv does not declare how it resets"):
            VectorEnvAdapter(silent)

    def test_environment_without_an_autoreset_mode_raises(self):
        vector = CartPoleVectorEnv(2)
        vector.metadata = {}
        with pytest.raises(ValueError, match="CartPoleVectorEnv does not declare how it resets"):
            VectorEnvAdapter(vector)


def test_adapter_exposes_name_shapes_and_reward_threshold():
    envs = VectorEnvAdapter(make_vector_env("CartPole-v1", 5))
    assert (envs.name, len(envs), envs.observation_shape) == ("CartPole-v1", 5, (4,))
    assert envs.action_space == Discrete(2)
    assert envs.reward_threshold == 475
    assert VectorEnvAdapter(CartPoleVectorEnv(2)).reward_threshold is None


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
class TestEndOfEpisode:
    def play(self, scripted, mode, plan, steps):
        envs = scripted(mode, plan, [(100, "terminated")])
        envs.reset()
        rows = []
        for _ in range(steps):
            before = envs.observation[0].tolist()
            step = envs.step(torch.tensor([1, 1]))
            assert step.mask[1]
            if step.mask[0]:
                rows.append(
                    (before, step.next_observation[0].tolist(), step.reward[0], step.terminated[0], step.done[0])
                )
        return rows

    def test_final_observation_is_followed_by_the_first_of_the_next_episode(self, mode, scripted):
        rows = self.play(scripted, mode, [(2, "terminated"), (1, "truncated")], steps=5)
        assert (
            rows[:4]
            == [
                ([0, 0], [0, 1], 11, False, False),
                ([0, 1], [0, 2], 21, True, True),
                ([1, 0], [1, 1], 11, False, True),
                ([2, 0], [2, 1], 11, False, False),
            ][: len(rows)]
        )

    def test_only_next_step_mode_has_a_masked_step(self, mode, scripted):
        rows = self.play(scripted, mode, [(2, "terminated")], steps=9)
        assert len(rows) == (6 if mode is AutoresetMode.NEXT_STEP else 9)

    def test_termination_and_truncation_at_the_same_step_count_as_termination(self, mode, scripted):
        rows = self.play(scripted, mode, [(1, "both")], steps=1)
        assert rows[0][3:] == (True, True)

    def test_earlier_step_results_are_not_overwritten(self, mode, scripted):
        envs = scripted(mode, [(1, "terminated")])
        envs.reset()
        step = envs.step(torch.tensor([0]))
        envs.step(torch.tensor([0]))
        assert step.next_observation.tolist() == [[0, 1]]


def test_native_cart_poles_move_like_single_ones():
    """From equal states both reach the ends of their episodes at the same step."""
    together, single = make_vector_env("CartPole-v1", 6), gymnasium.make_vec("CartPole-v1", 6, "sync")
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

        envs = VectorEnvAdapter(SyncVectorEnv([Echo, Echo]))
        envs.reset()
        return envs

    def test_actions_are_clipped_to_their_bounds(self):
        envs = self.made(Box(-2.0, 2.0, (1,), np.float64))
        assert envs.step(torch.tensor([[-7.0], [1.5]])).next_observation.tolist() == [[-2], [1.5]]

    def test_actions_are_shifted_by_the_start_of_the_space(self):
        envs = self.made(Discrete(3, start=5))
        assert envs.step(torch.tensor([0, 2])).next_observation.tolist() == [[5], [7]]

    @pytest.mark.parametrize(
        ("space", "action", "taken"),
        [
            (Box(-1, 1, (2, 2)), [[5.0, -5.0, 0.5, 0.0]] * 2, [[1, -1], [0.5, 0]]),
            (Box(0, 9, (3,), np.int64), [[8.6, -0.4, 12.0]] * 2, [9, 0, 9]),
            (MultiDiscrete([3, 2], start=[5, -1]), [[2, 0]] * 2, [7, -1]),
            (MultiDiscrete([[3], [2]]), [[2, 1]] * 2, [[2], [1]]),
            (MultiBinary((1, 2)), [[1, 0]] * 2, [[1, 0]]),
            (MultiDiscrete([3, 2]), [5, 5], [2, 1]),
        ],
        ids=str,
    )
    def test_actions_have_shape_dtype_and_start_of_the_space(self, space, action, taken):
        seen = []

        class Seeing(gymnasium.Env):
            observation_space, action_space = Box(0, 1, (1,)), space

            def reset(self, *, seed=None, options=None):
                return np.zeros(1, np.float32), {}

            def step(self, action):
                assert space.contains(action)
                seen.append(action.tolist())
                return np.zeros(1, np.float32), 0.0, False, False, {}

        envs = VectorEnvAdapter(SyncVectorEnv([Seeing, Seeing]))
        envs.reset()
        envs.step(torch.tensor(action))
        assert seen == [taken, taken]


class Odd(gymnasium.Env):
    """Environment whose step results are arguments."""

    action_space = Discrete(2)

    def __init__(self, reward=1.0, terminated=False, info=None, space=None):
        self.results = reward, terminated, False, info
        self.observation_space = Box(0, 1, (1,)) if space is None else space

    def reset(self, *, seed=None, options=None):
        self.observation_space.seed(seed)
        return self.observation_space.sample(), self.results[-1]

    def step(self, action):
        return self.observation_space.sample(), *self.results


@pytest.fixture
def odd(monkeypatch):
    """Return a vector environment of copies that may differ: ``odd({"info": None}, {"info": {}})``."""
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    monkeypatch.setattr(gymnasium, "registry", gymnasium.envs.registration.registry)

    def make(*kinds, tabular=False):
        left = iter(kinds)
        gymnasium.register("Odd-v0", lambda: Odd(**next(left)), max_episode_steps=3)
        return VectorEnvAdapter(make_vector_env("Odd-v0", len(kinds), tabular))

    return make


class TestStepValidation:
    @pytest.mark.parametrize(
        "infos",
        [
            [{"x": None}, {"x": 3}],
            [{"x": 3}, {"x": None}],
            [{"x": "left"}, {"x": 3.5}],
            [{"x": np.zeros(2)}, {"x": np.zeros(3)}],
            [{"x": 1}, {"x": {"y": 1}}],
            [{"x": {"y": 1}}, {"x": 1}],
            [None, {}],
            [[1, 2], "text"],
        ],
        ids=str,
    )
    def test_infos_of_any_kind_are_accepted(self, infos, odd):
        envs = odd(*({"info": info} for info in infos))
        envs.reset(seed=0)
        for _ in range(5):
            assert envs.step(torch.tensor([0, 1])).reward.shape == (2,)

    @pytest.mark.parametrize("reward", [2, True, np.float64(2), np.array(2.0), np.array([2.0]), torch.tensor(2.0)])
    def test_scalar_rewards_of_any_kind_are_accepted(self, reward, odd):
        envs = odd({"reward": reward})
        envs.reset(seed=0)
        assert envs.step(torch.tensor([0])).reward.tolist() == [np.asarray(reward).item()]

    @pytest.mark.parametrize("reward", [np.zeros(2), [1.0, 2.0], None, "much", np.zeros(0)], ids=str)
    def test_non_scalar_reward_raises(self, reward, odd):
        envs = odd({"reward": reward})
        envs.reset(seed=0)
        with pytest.raises(EnvError, match=r"^Odd-v0 returned the reward .*, which must be one number"):
            envs.step(torch.tensor([0]))

    @pytest.mark.parametrize(("given", "taken"), [(np.bool_(True), True), (1, True), (0, False), (np.array([1]), True)])
    def test_booleans_of_any_kind_are_accepted(self, given, taken, odd):
        envs = odd({"terminated": given})
        envs.reset(seed=0)
        assert envs.step(torch.tensor([0])).terminated.tolist() == [taken]

    @pytest.mark.parametrize("given", [None, 2, "no", [True, False], float("nan")], ids=str)
    def test_non_boolean_terminated_raises(self, given, odd):
        envs = odd({"terminated": given})
        envs.reset(seed=0)
        with pytest.raises(EnvError, match=r"^Odd-v0 returned terminated=.*, which must be true or false"):
            envs.step(torch.tensor([0]))

    def test_native_environment_with_several_rewards_raises(self):
        class Vectors(CartPoleVectorEnv):
            def step(self, action):
                observation, reward, *rest = super().step(action)
                return observation, np.stack([reward, reward], -1), *rest

        envs = VectorEnvAdapter(Vectors(2))
        envs.reset(seed=0)
        with pytest.raises(EnvError, match=r"must return a number as reward .* shapes \(2, 2\)"):
            envs.step(torch.tensor([0, 1]))

    def test_read_only_arrays_are_copied(self):
        class Frozen(CartPoleVectorEnv):
            def step(self, action):
                observation, *rest = super().step(action)
                observation.flags.writeable = False
                return observation, *rest

        envs = VectorEnvAdapter(Frozen(2))
        envs.reset(seed=0)
        next_observation = envs.step(torch.tensor([0, 1])).next_observation
        assert next_observation.flags.writeable  # torch.from_numpy warns of arrays that are not
        assert (next_observation == envs.observation).all()


class TestObservations:
    @pytest.mark.parametrize(
        ("space", "size"),
        [
            (Dict(a=Box(0, 1, (2, 2)), b=Discrete(3)), 7),
            (Tuple([Discrete(2), MultiBinary(3), Dict(c=MultiDiscrete([2, 4]))]), 11),
            (MultiDiscrete([2, 4]), 6),
            (MultiBinary((2, 3)), 6),
        ],
        ids=str,
    )
    def test_composite_observations_are_flattened_as_by_gymnasium(self, space, size, odd):
        envs = odd({"space": space})
        envs.reset(seed=0)
        assert envs.observation_shape == envs.observation.shape[1:] == (size,)
        assert envs.spaces["observation"] == space_to_dict(space)
        assert envs.step(torch.tensor([0])).next_observation.shape == (1, size)

    @pytest.mark.parametrize(
        ("space", "where"),
        [
            (Text(5), "observation is a Text"),
            (Sequence(Discrete(3)), "observation is a Sequence"),
            (Graph(Discrete(3), None), "observation is a Graph"),
            (Dict(a=Tuple([Discrete(2), Text(3)])), r"observation\['a'\]\[1\] is a Text"),
            (Box(0, 1, (0,)), "it is empty"),
        ],
        ids=["text", "sequence", "graph", "within", "empty"],
    )
    def test_observation_without_a_fixed_size_raises_with_its_path(self, space, where, odd):
        with pytest.raises(ValueError, match=f"the observation space of Odd-v0 is not supported: {where}"):
            odd({"space": space})

    def test_tabular_observations_are_indices(self, odd):
        envs = odd({"space": Tuple([Discrete(3, start=1), Box(-1, 1, (2,), np.int8)])}, tabular=True)
        envs.reset(seed=0)
        assert envs.observation_shape == ()
        assert envs.vector_env.single_observation_space == Discrete(27)
        assert 0 <= envs.observation[0] < 27

    @pytest.mark.parametrize("space", [Box(0, 1, (2,)), MultiBinary(50), Dict(a=Discrete(2), b=Box(0, 1, (1,)))])
    def test_infinite_observation_space_cannot_be_tabular(self, space, odd):
        with pytest.raises(ValueError, match=r"a table needs a finite observation space.* choose model=dqn"):
            odd({"space": space}, tabular=True)


class TestEnvError:
    class Failing(gymnasium.Env):
        """Environment that raises an error after a number of resets."""

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

    def test_error_in_a_step_names_the_environment(self):
        envs = VectorEnvAdapter(make_vector_env("CartPole-v1", 2))
        envs.reset(seed=0)
        with pytest.raises(EnvError, match="CartPole-v1 raised AssertionError: "):
            envs.step(torch.tensor([7, 7]))

    def test_error_in_a_reset_names_the_environment(self):
        with pytest.raises(EnvError, match="SyncVectorEnv raised KeyError in a reset: 'door'"):
            VectorEnvAdapter(SyncVectorEnv([self.Failing])).reset(seed=0)

    def test_error_in_the_reset_after_an_episode_names_the_environment(self):
        envs = VectorEnvAdapter(SyncVectorEnv([lambda: self.Failing(resets=1)], autoreset_mode=AutoresetMode.DISABLED))
        envs.reset(seed=0)
        with pytest.raises(EnvError, match="SyncVectorEnv raised KeyError in a reset: 'door'"):
            envs.step(torch.tensor([0]))

    def test_system_exit_in_a_step_is_an_env_worker_error(self):
        class Leaving(self.Failing):
            def step(self, action):
                raise SystemExit("bye")

        envs = VectorEnvAdapter(SyncVectorEnv([lambda: Leaving(resets=1)]))
        envs.reset(seed=0)
        with pytest.raises(EnvError, match="SyncVectorEnv raised SystemExit: bye"):
            envs.step(torch.tensor([0]))

    def test_error_while_an_environment_is_made_names_it(self):
        gymnasium.register("Failing-v0", lambda: self.Failing(resets=-1), max_episode_steps=5)
        try:
            with pytest.raises(EnvError, match="Failing-v0 raised OSError while it was made: no such world"):
                make_vector_env("Failing-v0", 2)
        finally:
            del gymnasium.registry["Failing-v0"]


def test_ale_environments_accept_any_seed():
    """Vector environments of ale-py 0.12.1 raise for seeds of 2**31 or more."""
    envs = VectorEnvAdapter(make_vector_env("ALE/Pong-v5", 2))
    envs.reset(seed=2**63 - 1)
    assert envs.observation.shape[0] == 2


class TestState:
    def play(self, envs, steps):
        rng = np.random.default_rng(7)
        rows = []
        for _ in range(steps):
            step = envs.step(torch.from_numpy(rng.integers(2, size=len(envs))))
            rows.append(np.concatenate([step.next_observation.ravel(), *step[1:], envs.observation.ravel()]))
        return np.stack(rows)

    def test_native_environments_continue_bit_for_bit_from_plain_data(self, tmp_path):
        """Across the ends of several episodes, whose random initial states depend on the saved state, too."""
        envs = VectorEnvAdapter(make_vector_env("CartPole-v1", 4))
        envs.reset(seed=1)
        self.play(envs, 30)
        torch.save(envs.state_dict(), tmp_path / "state.pt")
        expected = self.play(envs, 100)
        other = VectorEnvAdapter(make_vector_env("CartPole-v1", 4))
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert np.array_equal(self.play(other, 100), expected)
        other.reset(seed=2)
        assert not np.array_equal(self.play(other, 100), expected)

    def test_saved_state_does_not_change_with_later_steps(self, differences):
        envs = VectorEnvAdapter(make_vector_env("CartPole-v1", 4))
        envs.reset(seed=1)
        self.play(envs, 20)
        state, again = envs.state_dict(), envs.state_dict()
        self.play(envs, 20)
        assert differences(state, again) == []
        assert differences(state, envs.state_dict()) != []

    def test_environments_with_sub_environments_cannot_save_their_state(self):
        envs = VectorEnvAdapter(make_vector_env("Acrobot-v1", 2))
        envs.reset()
        assert not envs.can_save_state
        assert envs.state_dict() is None
