import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch.utils.data import DataLoader

from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.policies import make_policy
from zoo.control.rollout import Rollout
from zoo.control.rollout_dataset import STATS_WINDOW, RolloutDataset
from zoo.control.rollout_dataset import _ReturnTracker as ReturnTracker


def by_hand(reward, done, mask):
    reward, done, mask = torch.tensor(reward), torch.tensor(done).bool(), torch.tensor(mask).bool()
    zero = torch.zeros_like(done)
    return Rollout(zero, zero, reward, zero, zero, done, mask, zero.long())


class TestReturnTracker:
    def test_returns_are_undiscounted_and_exclude_steps_that_only_reset(self):
        tracker = ReturnTracker(2)
        tracker.update(by_hand([[1.0, 5.0], [2.0, 6.0]], [[0, 1], [0, 0]], [[1, 1], [1, 0]]))
        assert tracker.recent_returns == [5]
        tracker.update(by_hand([[4.0, 7.0], [9.0, 1.0]], [[1, 0], [0, 1]], [[1, 1], [0, 1]]))
        assert tracker.recent_returns == [5, 7, 8]
        assert tracker.partial_returns.tolist() == [0, 0]

    def test_mean_covers_the_last_hundred_episodes_and_needs_as_many(self):
        tracker = ReturnTracker(1)
        for number in range(STATS_WINDOW + 20):
            assert (tracker.mean is None) == (number < STATS_WINDOW)
            tracker.update(by_hand([[float(number)]], [[1]], [[1]]))
        assert tracker.mean == np.mean(range(20, STATS_WINDOW + 20))

    def test_returns_of_a_dataset_are_those_of_its_episodes(self, scripted, alternating):
        """Three steps 11 + 20 + 31, two steps 11 + 20, one step 11."""
        envs = scripted(AutoresetMode.NEXT_STEP, [(3, "terminated"), (2, "truncated"), (1, "terminated")])
        rollouts = RolloutDataset(envs, alternating, n_steps=4, num_rollouts=5, seed=0)
        list(rollouts)
        assert rollouts.returns.recent_returns[:6] == [62, 31, 11, 62, 31, 11]

    def test_unfinished_complete_episode_does_not_count_towards_the_next(self, scripted, alternating):
        envs = scripted(AutoresetMode.NEXT_STEP, [(9, "terminated"), (2, "terminated")])
        rollouts = RolloutDataset(envs, alternating, n_steps=4, num_rollouts=2, seed=0, complete_episodes=True)
        list(rollouts)
        assert rollouts.returns.recent_returns == [31]


def cart_pole(num_envs=4, n_steps=8, num_rollouts=3, seed=5, **options):
    torch.manual_seed(0)
    policy = make_policy((4,), 2, (8,))
    return RolloutDataset(
        VectorEnvAdapter(make_vector_env("CartPole-v1", num_envs)), policy, n_steps, num_rollouts, seed, **options
    )


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.rollout, other.rollout, strict=True)) and one[1:] == other[1:]


class TestRolloutDataset:
    def test_env_steps_exclude_steps_that_only_reset(self):
        rollouts = cart_pole(n_steps=40)
        batches = list(rollouts)
        assert [batch.env_steps for batch in batches] == np.cumsum([b.rollout.mask.sum() for b in batches]).tolist()
        assert batches[-1].env_steps == rollouts.env_steps < 3 * 40 * 4

    def test_rollouts_are_yielded_once(self):
        rollouts = cart_pole()
        first, second = list(rollouts), list(rollouts)
        assert len(first) == len(second) == len(rollouts) == 3
        assert second[0].env_steps > first[-1].env_steps
        assert torch.equal(second[0].rollout.observation[0], first[-1].rollout.next_observation[-1])

    def test_rollouts_are_collected_on_demand_by_the_current_policy(self):
        """Also through a DataLoader: a prefetched rollout would come from an older policy."""
        rollouts = cart_pole(num_rollouts=4)
        for number, batch in enumerate(DataLoader(rollouts, batch_size=None)):
            if number:
                assert batch.rollout.action.eq(number % 2).all()
            bias = rollouts.policy.net[-1].bias
            bias.data[:] = 1e3 * torch.eye(2)[(number + 1) % 2]

    def test_rollouts_depend_on_seed_and_rank(self):
        def starts(**options):
            return next(iter(cart_pole(**options))).rollout.observation[0]

        assert torch.equal(starts(), starts())
        assert not torch.equal(starts(), starts(seed=6))
        assert not torch.equal(starts(), starts(rank=1))

    def test_rollouts_continue_bit_for_bit_from_a_saved_state(self, tmp_path):
        rollouts = cart_pole(n_steps=40, num_rollouts=4)
        played = iter(rollouts)
        for _ in range(2):
            next(played)
        torch.save((rollouts.state_dict(), torch.get_rng_state()), tmp_path / "state.pt")
        expected = [*played, *rollouts]
        other = cart_pole(n_steps=40, num_rollouts=4)
        state, random = torch.load(tmp_path / "state.pt", weights_only=True)
        other.load_state_dict(state)
        torch.set_rng_state(random)
        continued = [*other, *other]
        assert len(expected) == len(continued) == 6
        assert all(same(*pair) for pair in zip(expected, continued, strict=True))

    def test_environments_that_cannot_save_their_state_are_reset_before_each_epoch(self, scripted, alternating):
        """Seeds depend on the steps so far alone, so that a resumed run uses the same ones."""
        plan = [(50, "terminated")]

        def fresh():
            return RolloutDataset(scripted(AutoresetMode.NEXT_STEP, plan), alternating, 4, num_rollouts=2, seed=0)

        def seeds(rollouts):
            return rollouts.envs.vector_env.envs[0].unwrapped.seeds

        rollouts = fresh()
        first, state = list(rollouts), rollouts.state_dict()
        with pytest.warns(UserWarning, match="lasted longer than the 8 steps .* increase model.eval_freq"):
            second = list(rollouts)
        assert [batch.rollout.step_count[0].item() for batch in first + second] == [0, 4, 0, 4]
        assert len(set(seeds(rollouts))) == 2
        other = fresh()
        other.load_state_dict(state)
        with pytest.warns(UserWarning, match="lasted longer"):
            continued = list(other)
        assert seeds(other) == seeds(rollouts)[1:]
        assert [batch.env_steps for batch in continued] == [batch.env_steps for batch in second] == [12, 16]

    def test_episodes_that_end_within_an_epoch_issue_no_warning(self, scripted, alternating):
        rollouts = RolloutDataset(
            scripted(AutoresetMode.NEXT_STEP, [(8, "terminated")]), alternating, 4, num_rollouts=2, seed=0
        )
        assert [batch.rollout.done.any().item() for batch in [*rollouts, *rollouts]] == [False, True] * 2

    def test_rollouts_that_only_reset_are_skipped(self, scripted, alternating):
        plan = [(2, "terminated")]
        batches = list(
            RolloutDataset(scripted(AutoresetMode.NEXT_STEP, plan, plan), alternating, 1, num_rollouts=6, seed=0)
        )
        assert [batch.rollout.step_count[0, 0].item() for batch in batches] == [0, 1] * 3
        assert [batch.env_steps for batch in batches] == [2, 4, 6, 8, 10, 12]
