import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn

from zoo.control._acting import make_act_fn, numpy_forward
from zoo.control._networks import RunningNorm, make_network
from zoo.control.envs._wrappers import EnvError
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.policies import CategoricalPolicy, make_policy
from zoo.control.rollout import collect_rollout
from zoo.control.rollout_dataset import RolloutDataset

MODES = list(AutoresetMode)
PLANS = [
    [(3, "terminated"), (2, "truncated"), (1, "terminated")],
    [(2, "both"), (4, "truncated")],
    [(1, "terminated")],
    [(50, "terminated")],
]


def transitions(rollout, env):
    """Return the valid steps of an environment, in order."""
    rows = rollout._replace(mask=rollout.mask.clone())
    return [tuple(part[t, env].tolist() for part in rows) for t in range(len(rows.reward)) if rows.mask[t, env]]


def play(envs, policy, steps, **options):
    envs.reset(seed=0)
    return collect_rollout(envs, policy, steps, np.zeros(len(envs), np.int64), **options)


class TestTransitions:
    def test_transitions_are_the_same_in_all_autoreset_modes(self, scripted, alternating):
        rollouts = {mode: play(scripted(mode, *PLANS), alternating, 24) for mode in MODES}
        for env in range(len(PLANS)):
            rows = {mode: transitions(rollout, env) for mode, rollout in rollouts.items()}
            fewest = len(rows[AutoresetMode.NEXT_STEP])
            assert fewest >= 12
            assert rows[AutoresetMode.NEXT_STEP] == rows[AutoresetMode.SAME_STEP][:fewest]
            assert rows[AutoresetMode.SAME_STEP] == rows[AutoresetMode.DISABLED]

    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
    def test_transitions_equal_a_computation_by_hand(self, mode, scripted, alternating):
        """Observation, action, reward, next observation, terminated, done, mask and step count of the first steps."""
        rollout = play(scripted(mode, *PLANS), alternating, 9)
        assert transitions(rollout, 0)[:6] == [
            ([0, 0], 1, 11, [0, 1], False, False, True, 0),
            ([0, 1], 0, 20, [0, 2], False, False, True, 1),
            ([0, 2], 1, 31, [0, 3], True, True, True, 2),
            ([1, 0], 1, 11, [1, 1], False, False, True, 0),
            ([1, 1], 0, 20, [1, 2], False, True, True, 1),
            ([2, 0], 1, 11, [2, 1], True, True, True, 0),
        ]
        assert transitions(rollout, 1)[1] == ([0, 1], 0, 20, [0, 2], True, True, True, 1)

    def test_steps_that_only_reset_are_masked(self, scripted, alternating):
        rollout = play(scripted(AutoresetMode.NEXT_STEP, *PLANS), alternating, 9)
        before = torch.cat([torch.zeros(1, 4, dtype=torch.bool), rollout.done[:-1]])
        assert torch.equal(rollout.mask, ~before)
        assert not rollout.done[~rollout.mask].any()
        assert all(play(scripted(mode, *PLANS), alternating, 9).mask.all() for mode in MODES[1:])

    def test_next_rollout_continues_the_episodes(self, scripted, alternating):
        envs, step_count = scripted(AutoresetMode.NEXT_STEP, *PLANS), np.zeros(4, np.int64)
        envs.reset(seed=0)
        parts = [collect_rollout(envs, alternating, steps, step_count) for steps in (4, 7, 13)]
        whole = play(scripted(AutoresetMode.NEXT_STEP, *PLANS), alternating, 24)
        for part, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(part), expected)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
class TestCompleteEpisodes:
    def test_rollout_has_one_episode_of_each_environment(self, mode, scripted, alternating):
        rollout = play(scripted(mode, *PLANS[:3]), alternating, 40, complete_episodes=True)
        assert rollout.mask.sum(0).tolist() == [3, 2, 1]
        assert (rollout.done & rollout.mask).sum(0).tolist() == [1, 1, 1]
        assert len(rollout.reward) == 3

    def test_episodes_are_truncated_after_n_steps(self, mode, scripted, alternating):
        rollout = play(scripted(mode, *PLANS), alternating, 5, complete_episodes=True)
        assert rollout.mask.sum(0).tolist() == [3, 2, 1, 5]

    def test_episodes_restart_with_each_rollout(self, mode, scripted, alternating):
        batches = list(
            RolloutDataset(scripted(mode, *PLANS), alternating, 5, num_rollouts=3, seed=0, complete_episodes=True)
        )
        for rollout, *_ in batches:
            assert rollout.step_count[0].tolist() == rollout.observation[0, :, 1].tolist() == [0] * 4
        assert batches[-1].env_steps == sum(int(batch.rollout.mask.sum()) for batch in batches)


class Faulty(gymnasium.Env):
    """Environment with a fault at the third step, in each reset, or in the second one after an episode of two steps."""

    action_space, observation_space = Discrete(2), Box(-np.inf, np.inf, (2,))

    def __init__(self, fault):
        self.fault, self.episode = fault, 0

    def reset(self, *, seed=None, options=None):
        self.time, self.episode = 0, self.episode + 1
        broken = self.fault == "reset" or (self.fault == "second reset" and self.episode == 2)
        return np.full(2, np.nan if broken else 0, np.float32), {}

    def step(self, action):
        self.time += 1
        observation, reward = np.zeros(2, np.float32), 0.0
        if self.time == 3 and self.fault == "observation":
            observation[1] = np.nan
        if self.time == 3 and self.fault == "reward":
            reward = np.inf
        if self.time == 3 and self.fault == "error":
            raise OSError("the robot fell over")
        return observation, reward, self.fault == "second reset" and self.time == 2, False, {}


class TestFaults:
    def played(self, *faults, **options):
        envs = VectorEnvAdapter(SyncVectorEnv([lambda kind=kind: Faulty(kind) for kind in ("none", *faults)]))
        return play(envs, make_policy((2,), 2, ()), 5, **options)

    @pytest.mark.parametrize("fault", ["observation", "reward"])
    def test_values_that_are_not_finite_raise_with_environment_and_step(self, fault):
        message = (
            f"SyncVectorEnv returned {fault}s that are not finite, first in environment 1 at step 2 of the rollout"
        )
        with pytest.raises(EnvError, match=message):
            self.played(fault)

    def test_observation_of_a_reset_that_is_not_finite_raises(self):
        with pytest.raises(EnvError, match=r"observations that are not finite.*environment 1 at step 0"):
            self.played("reset")

    def test_observation_of_a_reset_within_the_rollout_that_is_not_finite_raises(self):
        """Step 2 resets."""
        with pytest.raises(EnvError, match=r"observations that are not finite.*environment 1 at step 2"):
            self.played("second reset")

    @pytest.mark.parametrize("later", ["reward", "observation"])
    def test_first_of_several_faults_is_named(self, later):
        with pytest.raises(EnvError, match=r"returned observations .* first in environment 2 at step 0"):
            self.played(later, "reset")

    def test_error_message_has_the_number_of_earlier_steps(self):
        with pytest.raises(EnvError, match="at step 2 of the rollout that began after 640 environment steps"):
            self.played("reward", env_steps=640)

    def test_error_of_an_environment_is_quoted(self):
        with pytest.raises(EnvError, match="SyncVectorEnv raised OSError: the robot fell over"):
            self.played("error")

    def test_rollout_without_faults_does_not_raise(self):
        assert self.played("none").mask.all()


SHAPES = [(), (4,), (2, 3)]
POLICIES = {"categorical": 3, "several": [2, 3], "gaussian": [(-2.0, 2.0), (0.0, 1.0)]}


@pytest.fixture
def learned():
    """Return a policy whose parameters and statistics differ from their initial values."""

    def make(shape, actions, hidden=(16, 8)):
        policy = make_policy(shape, actions, hidden)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.normal_()
        policy.net[0].update(3 * torch.randn(100, *shape) + 1)
        return policy

    return make


def both(policy, observation):
    noise = policy.noise(len(observation))
    return make_act_fn(policy)(observation, noise), policy.act(torch.from_numpy(observation), noise)


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("actions", POLICIES.values(), ids=POLICIES)
class TestNumpyForward:
    def test_numpy_actions_equal_those_of_torch(self, learned, actions, shape, hidden):
        observation = np.random.default_rng(0).normal(1, 9, (200, *shape)).astype(np.float32)
        acted, expected = both(learned(shape, actions, hidden), observation)
        assert acted.dtype == expected.dtype
        torch.testing.assert_close(acted, expected.detach())

    def test_numpy_accepts_any_dtype_and_does_not_change_the_observation(self, learned, actions, shape, hidden):
        policy = learned(shape, actions, hidden)
        for dtype in (bool, np.uint8, np.int64, np.float64):
            observation = np.random.default_rng(0).integers(0, 2, (50, *shape)).astype(dtype)
            before = observation.copy()
            torch.testing.assert_close(*(action.detach() for action in both(policy, observation)))
            assert (observation == before).all()


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_numpy_subtracts_a_large_offset_as_torch_does(dtype, learned):
    policy = learned((4,), 3)
    observation = 1_700_000_000 + np.random.default_rng(0).integers(0, 100, (200, 4)).astype(dtype)
    policy.net[0] = RunningNorm((4,))
    policy.net[0].update(torch.from_numpy(observation[:100]))
    torch.testing.assert_close(
        torch.from_numpy(numpy_forward(policy.net)(observation)), policy.net(torch.from_numpy(observation))
    )
    assert policy.net[0](torch.from_numpy(observation)).std() > 0.5


class TestMakeActFn:
    def test_act_fn_has_the_current_parameters(self, learned):
        policy = learned((4,), 3)
        observation = torch.randn(64, 4).numpy()
        before = numpy_forward(policy.net)(observation)
        with torch.no_grad():
            policy.net[-1].bias += torch.tensor([0.0, 50.0, 0.0])
        policy.net[0].update(torch.randn(1000, 4))
        acted, expected = both(policy, observation)
        assert torch.equal(acted, expected)
        assert abs(numpy_forward(policy.net)(observation) - before).max() > 1

    def test_unsupported_networks_use_torch(self):
        nets = nn.Linear(4, 2), make_network((10, 10, 4), 2, (8,)), nn.Sequential(RunningNorm((4,)), nn.ReLU())
        assert [numpy_forward(net) for net in nets] == [None] * 3
        torch.testing.assert_close(*both(CategoricalPolicy(nets[0], 2), np.ones((5, 4), np.float32)))

    def test_layers_without_bias_and_subclasses_use_torch(self):
        class Twice(nn.Linear):
            def forward(self, x):
                return 2 * super().forward(x)

        assert numpy_forward(nn.Sequential(RunningNorm((4,)), Twice(4, 2))) is None
        assert numpy_forward(nn.Sequential(RunningNorm((4,)), nn.Linear(4, 2, bias=False))) is None
