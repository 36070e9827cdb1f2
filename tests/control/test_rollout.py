import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.utils.data import DataLoader

from zoo.control.envs.vector_env import EnvironmentFailure, Environments, make_environments
from zoo.control.policy_gradient.policies import CategoricalPolicy, make_policy
from zoo.control.rollout import RECENT, ReturnTracker, Rollout, Rollouts, collect

MODES = list(AutoresetMode)
PLANS = [
    [(3, "terminated"), (2, "truncated"), (1, "terminated")],
    [(2, "both"), (4, "truncated")],
    [(1, "terminated")],
    [(50, "terminated")],
]


class Alternating(nn.Module):
    """Action 1 at even steps of an episode, 0 at odd ones, whatever the noise."""

    def __init__(self):
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(1e6))

    def forward(self, observation):
        even = 1 - observation[..., 1] % 2
        return self.sure * torch.stack([1 - even, even], -1)


@pytest.fixture
def alternating():
    return CategoricalPolicy(Alternating(), actions=2)


def transitions(rollout, env):
    """The valid steps of an environment, in order."""
    rows = rollout._replace(valid=rollout.valid.clone())
    return [tuple(part[t, env].tolist() for part in rows) for t in range(len(rows.reward)) if rows.valid[t, env]]


def play(environments, policy, steps, **options):
    environments.reset(seed=0)
    return collect(environments, policy, steps, np.zeros(len(environments), np.int64), **options)


class TestTransitions:
    def test_are_the_same_in_all_modes_of_reset(self, diaries, alternating):
        rollouts = {mode: play(diaries(mode, *PLANS), alternating, 24) for mode in MODES}
        for env in range(len(PLANS)):
            rows = {mode: transitions(rollout, env) for mode, rollout in rollouts.items()}
            fewest = len(rows[AutoresetMode.NEXT_STEP])
            assert fewest >= 12
            assert rows[AutoresetMode.NEXT_STEP] == rows[AutoresetMode.SAME_STEP][:fewest]
            assert rows[AutoresetMode.SAME_STEP] == rows[AutoresetMode.DISABLED]

    @pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
    def test_by_hand(self, mode, diaries, alternating):
        """Observation, action, reward, following, terminated, ended, valid and time of the first episodes."""
        rollout = play(diaries(mode, *PLANS), alternating, 9)
        assert transitions(rollout, 0)[:6] == [
            ([0, 0], 1, 11, [0, 1], False, False, True, 0),
            ([0, 1], 0, 20, [0, 2], False, False, True, 1),
            ([0, 2], 1, 31, [0, 3], True, True, True, 2),
            ([1, 0], 1, 11, [1, 1], False, False, True, 0),
            ([1, 1], 0, 20, [1, 2], False, True, True, 1),
            ([2, 0], 1, 11, [2, 1], True, True, True, 0),
        ]
        assert transitions(rollout, 1)[1] == ([0, 1], 0, 20, [0, 2], True, True, True, 1)

    def test_that_only_reset_are_not_valid(self, diaries, alternating):
        rollout = play(diaries(AutoresetMode.NEXT_STEP, *PLANS), alternating, 9)
        before = torch.cat([torch.zeros(1, 4, dtype=torch.bool), rollout.ended[:-1]])
        assert torch.equal(rollout.valid, ~before)
        assert not rollout.ended[~rollout.valid].any()
        assert all(play(diaries(mode, *PLANS), alternating, 9).valid.all() for mode in MODES[1:])

    def test_go_on_in_the_next_rollout(self, diaries, alternating):
        environments, elapsed = diaries(AutoresetMode.NEXT_STEP, *PLANS), np.zeros(4, np.int64)
        environments.reset(seed=0)
        parts = [collect(environments, alternating, steps, elapsed) for steps in (4, 7, 13)]
        whole = play(diaries(AutoresetMode.NEXT_STEP, *PLANS), alternating, 24)
        for part, expected in zip(zip(*parts, strict=True), whole, strict=True):
            assert torch.equal(torch.cat(part), expected)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
class TestWholeEpisodes:
    def test_are_one_of_each_environment(self, mode, diaries, alternating):
        rollout = play(diaries(mode, *PLANS[:3]), alternating, 40, whole=True)
        assert rollout.valid.sum(0).tolist() == [3, 2, 1]
        assert (rollout.ended & rollout.valid).sum(0).tolist() == [1, 1, 1]
        assert len(rollout.reward) == 3

    def test_last_no_longer_than_they_may(self, mode, diaries, alternating):
        rollout = play(diaries(mode, *PLANS), alternating, 5, whole=True)
        assert rollout.valid.sum(0).tolist() == [3, 2, 1, 5]

    def test_begin_anew_with_each_rollout(self, mode, diaries, alternating):
        batches = list(Rollouts(diaries(mode, *PLANS), alternating, 5, rollouts=3, seed=0, whole=True))
        for rollout, *_ in batches:
            assert rollout.elapsed[0].tolist() == rollout.observation[0, :, 1].tolist() == [0] * 4
        assert batches[-1].env_steps == sum(int(batch.rollout.valid.sum()) for batch in batches)


class Faulty(gymnasium.Env):
    """Does something wrong at the third step, or in a reset: in the second, after an episode of two steps."""

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
        environments = Environments(SyncVectorEnv([lambda kind=kind: Faulty(kind) for kind in ("none", *faults)]))
        return play(environments, make_policy((2,), 2, ()), 5, **options)

    @pytest.mark.parametrize("fault", ["observation", "reward"])
    def test_numbers_that_are_not_finite_are_refused_by_environment_and_step(self, fault):
        message = f"SyncVectorEnv gave {fault}s that are not finite, first in environment 1 at step 2 of the rollout"
        with pytest.raises(EnvironmentFailure, match=message):
            self.played(fault)

    def test_so_are_those_of_a_reset(self):
        with pytest.raises(EnvironmentFailure, match=r"observations that are not finite.*environment 1 at step 0"):
            self.played("reset")

    def test_so_are_those_of_a_reset_amid_the_rollout(self):
        """Steps 0 and 1 are played, step 2 resets."""
        with pytest.raises(EnvironmentFailure, match=r"observations that are not finite.*environment 1 at step 2"):
            self.played("second reset")

    @pytest.mark.parametrize("later", ["reward", "observation"])
    def test_the_first_of_several_is_named_whatever_it_is(self, later):
        with pytest.raises(EnvironmentFailure, match=r"gave observations .* first in environment 2 at step 0"):
            self.played(later, "reset")

    def test_it_is_said_which_rollout_it_was(self):
        with pytest.raises(EnvironmentFailure, match="at step 2 of the rollout that began after 640 environment steps"):
            self.played("reward", env_steps=640)

    def test_an_error_is_shown_in_its_own_words(self):
        with pytest.raises(EnvironmentFailure, match="SyncVectorEnv raised OSError: the robot fell over"):
            self.played("error")

    def test_without_one_nothing_is_said(self):
        assert self.played("none").valid.all()


def by_hand(reward, ended, valid):
    reward, ended, valid = torch.tensor(reward), torch.tensor(ended).bool(), torch.tensor(valid).bool()
    zero = torch.zeros_like(ended)
    return Rollout(zero, zero, reward, zero, zero, ended, valid, zero.long())


class TestReturnsWhileLearning:
    def test_are_those_of_whole_episodes_without_discount_or_steps_that_only_reset(self):
        tracker = ReturnTracker(2)
        tracker.update(by_hand([[1.0, 5.0], [2.0, 6.0]], [[0, 1], [0, 0]], [[1, 1], [1, 0]]))
        assert tracker.recent == [5]
        tracker.update(by_hand([[4.0, 7.0], [9.0, 1.0]], [[1, 0], [0, 1]], [[1, 1], [0, 1]]))
        assert tracker.recent == [5, 7, 8]
        assert tracker.running.tolist() == [0, 0]

    def test_have_no_mean_before_there_are_a_hundred_and_then_that_of_the_last(self):
        tracker = ReturnTracker(1)
        for number in range(RECENT + 20):
            assert (tracker.mean is None) == (number < RECENT)
            tracker.update(by_hand([[float(number)]], [[1]], [[1]]))
        assert tracker.mean == np.mean(range(20, RECENT + 20))

    def test_of_the_environments_are_what_was_earned(self, diaries, alternating):
        """Three steps 11 + 20 + 31, two steps 11 + 20, one step 11."""
        rollouts = Rollouts(diaries(AutoresetMode.NEXT_STEP, PLANS[0]), alternating, steps=4, rollouts=5, seed=0)
        list(rollouts)
        assert rollouts.returns.recent[:6] == [62, 31, 11, 62, 31, 11]

    def test_of_an_episode_that_a_whole_rollout_left_unfinished_are_not_given_to_the_next(self, diaries, alternating):
        environments = diaries(AutoresetMode.NEXT_STEP, [(9, "terminated"), (2, "terminated")])
        rollouts = Rollouts(environments, alternating, steps=4, rollouts=2, seed=0, whole=True)
        list(rollouts)
        assert rollouts.returns.recent == [31]


def cart_pole(count=4, steps=8, rollouts=3, seed=5, **options):
    torch.manual_seed(0)
    policy = make_policy((4,), 2, (8,))
    return Rollouts(Environments(make_environments("CartPole-v1", count)), policy, steps, rollouts, seed, **options)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.rollout, other.rollout, strict=True)) and one[1:] == other[1:]


class TestRollouts:
    def test_count_environment_steps_and_none_that_only_reset(self):
        rollouts = cart_pole(steps=40)
        batches = list(rollouts)
        assert [batch.env_steps for batch in batches] == np.cumsum([b.rollout.valid.sum() for b in batches]).tolist()
        assert batches[-1].env_steps == rollouts.env_steps < 3 * 40 * 4

    def test_are_given_once(self):
        rollouts = cart_pole()
        first, second = list(rollouts), list(rollouts)
        assert len(first) == len(second) == len(rollouts) == 3
        assert second[0].env_steps > first[-1].env_steps
        assert torch.equal(second[0].rollout.observation[0], first[-1].rollout.following[-1])

    def test_are_taken_when_asked_for_by_the_policy_as_it_is_then(self):
        """Also through a loader: what it took ahead would be of an older policy."""
        rollouts = cart_pole(rollouts=4)
        for number, batch in enumerate(DataLoader(rollouts, batch_size=None)):
            if number:
                assert batch.rollout.action.eq(number % 2).all()
            bias = rollouts.policy.net[-1].bias
            bias.data[:] = 1e3 * torch.eye(2)[(number + 1) % 2]

    def test_depend_on_the_seed_and_the_rank(self):
        def starts(**options):
            return next(iter(cart_pole(**options))).rollout.observation[0]

        assert torch.equal(starts(), starts())
        assert not torch.equal(starts(), starts(seed=6))
        assert not torch.equal(starts(), starts(rank=1))

    def test_go_on_from_their_state_bit_for_bit(self, tmp_path):
        rollouts = cart_pole(steps=40, rollouts=4)
        played = iter(rollouts)
        for _ in range(2):
            next(played)
        torch.save((rollouts.state_dict(), torch.get_rng_state()), tmp_path / "state.pt")
        expected = [*played, *rollouts]
        other = cart_pole(steps=40, rollouts=4)
        state, random = torch.load(tmp_path / "state.pt", weights_only=True)
        other.load_state_dict(state)
        torch.set_rng_state(random)
        continued = [*other, *other]
        assert len(expected) == len(continued) == 6
        assert all(same(*pair) for pair in zip(expected, continued, strict=True))

    def test_of_environments_that_cannot_tell_their_state_begin_each_pass_anew(self, diaries, alternating):
        """The seeds follow from the steps so far alone, so that a run that was stopped meets the same ones."""
        plan = [(50, "terminated")]

        def fresh():
            return Rollouts(diaries(AutoresetMode.NEXT_STEP, plan), alternating, 4, rollouts=2, seed=0)

        def seeds(rollouts):
            return rollouts.environments.vector.envs[0].unwrapped.seeds

        rollouts = fresh()
        first, state = list(rollouts), rollouts.state_dict()
        with pytest.warns(UserWarning, match="lasted longer than the 8 steps .* make model.eval_freq larger"):
            second = list(rollouts)
        assert [batch.rollout.elapsed[0].item() for batch in first + second] == [0, 4, 0, 4]
        assert len(set(seeds(rollouts))) == 2
        other = fresh()
        other.load_state_dict(state)
        with pytest.warns(UserWarning, match="lasted longer"):
            continued = list(other)
        assert seeds(other) == seeds(rollouts)[1:]
        assert [batch.env_steps for batch in continued] == [batch.env_steps for batch in second] == [12, 16]

    def test_of_episodes_that_end_within_a_pass_are_no_cause_to_warn(self, diaries, alternating):
        rollouts = Rollouts(diaries(AutoresetMode.NEXT_STEP, [(8, "terminated")]), alternating, 4, rollouts=2, seed=0)
        assert [batch.rollout.ended.any().item() for batch in [*rollouts, *rollouts]] == [False, True] * 2

    def test_in_which_all_environments_only_reset_are_left_out(self, diaries, alternating):
        plan = [(2, "terminated")]
        batches = list(Rollouts(diaries(AutoresetMode.NEXT_STEP, plan, plan), alternating, 1, rollouts=6, seed=0))
        assert [batch.rollout.elapsed[0, 0].item() for batch in batches] == [0, 1] * 3
        assert [batch.env_steps for batch in batches] == [2, 4, 6, 8, 10, 12]
