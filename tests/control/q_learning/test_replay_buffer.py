import pytest
import torch
from scipy import stats

from zoo.control.q_learning.replay_buffer import ReplayBuffer, Transitions
from zoo.control.rollout import Rollout

GAMMA = 0.5


def rollout_of(*episodes, cut=(), reset="next step", frames=False):
    """Episodes of one environment, one after the other; observation ``10 e + t``, reward ``1 + t``, in episode ``e``.

    Each is a number of steps; all terminate but those that are cut. ``reset`` says how one is followed by the next.
    """
    rows = []
    for e, steps in enumerate(episodes):
        for t in range(steps):
            last = t == steps - 1
            rows.append((10 * e + t, t % 2, 1.0 + t, 10 * e + t + 1, last and e not in cut, last, True))
        if reset == "next step" and e < len(episodes) - 1:
            rows.append((10 * e + steps, 0, 0.0, 10 * (e + 1), False, False, False))
    observation, action, reward, next_observation, *flags = (
        torch.tensor(column)[:, None] for column in zip(*rows, strict=True)
    )
    if frames:
        observation, next_observation = (
            x.to(torch.uint8)[..., None, None].expand(-1, -1, 2, 2) for x in (observation, next_observation)
        )
    return Rollout(observation, action, reward, next_observation, *flags, torch.zeros_like(action))


def all_transitions(replay):
    """Return each transition that can be sampled once, as tuples."""
    rows = torch.arange(replay.num_added - min(replay.num_added, replay.buffer_size), replay.num_added - replay.n_steps)
    drawn = replay.transitions(rows, torch.zeros_like(rows))
    assert isinstance(drawn, Transitions)
    return list(zip(*(column.tolist() for column in drawn), strict=True))


class TestToTransitions:
    @pytest.mark.parametrize("reset", ["next step", "same step"])
    def test_transitions_exclude_steps_between_episodes(self, reset):
        steps = Transitions.from_rollout(rollout_of(2, 3, cut=[1], reset=reset), GAMMA)
        assert list(zip(*(column.tolist() for column in steps), strict=True)) == [
            (0, 0, 1.0, False, 1, 0.5),
            (1, 1, 2.0, True, 2, 0.5),
            (10, 0, 1.0, False, 11, 0.5),
            (11, 1, 2.0, False, 12, 0.5),
            (12, 0, 3.0, False, 13, 0.5),
        ]


class TestOneStep:
    @pytest.mark.parametrize("pieces", [1, 2, 9])
    def test_transitions_do_not_depend_on_how_rollouts_are_split(self, pieces):
        rollout = rollout_of(2, 3, 2, cut=[1])
        replay = ReplayBuffer(buffer_size=20, n_steps=1, gamma=GAMMA)
        for rows in torch.arange(9).tensor_split(pieces):
            replay.add(Rollout(*(column[rows] for column in rollout)))
        assert all_transitions(replay) == [
            (0, 0, 1.0, False, 1, 0.5),
            (1, 1, 2.0, True, 2, 0.5),
            (10, 0, 1.0, False, 11, 0.5),
            (11, 1, 2.0, False, 12, 0.5),
            (12, 0, 3.0, False, 13, 0.5),
            (20, 0, 1.0, False, 21, 0.5),
        ]

    def test_step_before_an_unknown_observation_is_used_only_if_it_terminated(self):
        """In same-step mode the final observation of an episode is not stored; it is needed only after a truncation."""
        replay = ReplayBuffer(buffer_size=20, n_steps=1, gamma=GAMMA)
        replay.add(rollout_of(2, 2, 2, cut=[1], reset="same step"))
        assert [(x[0], x[3]) for x in all_transitions(replay)] == [(0, False), (1, True), (10, False), (20, False)]

    def test_step_before_a_reset_between_rollouts_is_not_used(self):
        replay = ReplayBuffer(buffer_size=20, n_steps=1, gamma=GAMMA)
        replay.add(rollout_of(5))
        beginning = Rollout(*(column[:3] for column in rollout_of(5)))
        for _ in range(2):
            replay.add(beginning)  # as after a reset: the next row does not continue the last step
        starts = [x[0] for x in all_transitions(replay)]
        assert starts == [0, 1, 2, 3, 4, 0, 1, 0, 1]


class TestNStep:
    def test_rewards_are_summed_up_to_the_end_of_the_episode(self):
        """Three steps, fewer before an end; discount and ``terminated`` as of the last of them."""
        replay = ReplayBuffer(buffer_size=30, n_steps=3, gamma=GAMMA)
        replay.add(rollout_of(4, 3, 5, cut=[1]))
        assert all_transitions(replay) == [
            (0, 0, 1 + 2 / 2 + 3 / 4, False, 3, 0.125),
            (1, 1, 2 + 3 / 2 + 4 / 4, True, 4, 0.125),
            (2, 0, 3 + 4 / 2, True, 4, 0.25),
            (3, 1, 4.0, True, 4, 0.5),
            (10, 0, 1 + 2 / 2 + 3 / 4, False, 13, 0.125),
            (11, 1, 2 + 3 / 2, False, 13, 0.25),
            (12, 0, 3.0, False, 13, 0.5),
            (20, 0, 1 + 2 / 2 + 3 / 4, False, 23, 0.125),
            (21, 1, 2 + 3 / 2 + 4 / 4, False, 24, 0.125),
        ]

    def test_transitions_do_not_cross_a_reset(self):
        replay = ReplayBuffer(buffer_size=20, n_steps=2, gamma=GAMMA)
        replay.add(Rollout(*(column[:3] for column in rollout_of(9))))
        replay.add(rollout_of(9))
        assert [(x[0], x[4]) for x in all_transitions(replay)][:3] == [(0, 2), (0, 2), (1, 3)]


class TestRingBuffer:
    def test_oldest_steps_are_overwritten(self):
        replay = ReplayBuffer(buffer_size=6, n_steps=1, gamma=GAMMA)
        for start in range(0, 14, 2):
            rollout = Rollout(*(column[start : start + 2] for column in rollout_of(20)))
            replay.add(rollout)
        assert replay.columns["action"].shape == (6, 1)
        assert [(x[0], x[4]) for x in all_transitions(replay)] == [(t, t + 1) for t in range(8, 13)]

    def test_images_are_stored_once_as_bytes(self):
        replay = ReplayBuffer(buffer_size=20, n_steps=1, gamma=GAMMA)
        replay.add(rollout_of(4, 4, frames=True))
        tensors = [x for x in replay.columns.values() if x.ndim > 2]
        assert [(x.dtype, x.shape) for x in tensors] == [(torch.uint8, (20, 1, 2, 2))]
        batch = replay.sample(50)
        torch.testing.assert_close(batch.next_observation[~batch.terminated], batch.observation[~batch.terminated] + 1)

    def test_samples_come_from_all_environments_and_rows(self):
        one = rollout_of(30)
        other = one._replace(observation=one.observation + 100, next_observation=one.next_observation + 100)
        both = Rollout(*(torch.cat(columns, 1) for columns in zip(one, other, strict=True)))
        replay = ReplayBuffer(buffer_size=100, n_steps=1, gamma=GAMMA)
        replay.add(both)
        drawn = replay.sample(5000).observation
        assert sorted(set(drawn.tolist())) == [*range(29), *range(100, 129)]

    @pytest.mark.parametrize("size", [1, 7, 200])
    def test_batches_are_full_if_half_of_the_rows_only_reset(self, size):
        replay = ReplayBuffer(buffer_size=100, n_steps=1, gamma=GAMMA)
        replay.add(rollout_of(*[1] * 20))
        assert (~replay.columns["mask"][:39]).sum() == 19
        torch.manual_seed(0)
        drawn = [replay.sample(size) for _ in range(20)]
        assert {len(column) for batch in drawn for column in batch} == {size}
        assert all(batch.terminated.all() for batch in drawn)

    def test_usable_transitions_are_sampled_uniformly(self):
        replay = ReplayBuffer(buffer_size=100, n_steps=1, gamma=GAMMA)
        replay.add(rollout_of(*[1, 3] * 5, 1))
        torch.manual_seed(0)
        counts = replay.sample(10_000).observation.unique(return_counts=True)[1]
        assert len(counts) == 20
        assert stats.chisquare(counts).pvalue > 1e-6

    def test_buffer_without_usable_steps_raises(self):
        replay = ReplayBuffer(buffer_size=100, n_steps=2, gamma=GAMMA)
        replay.add(rollout_of(*[1] * 20, cut=range(20), reset="same step"))
        with pytest.raises(ValueError, match=r"hardly any of the 20 steps .* is followed by 2 .* reduce n_steps"):
            replay.sample(4)

    @pytest.mark.parametrize("rows", [0, 2])
    def test_sampling_from_an_almost_empty_buffer_raises(self, rows):
        replay = ReplayBuffer(buffer_size=20, n_steps=2, gamma=GAMMA)
        if rows:
            replay.add(rollout_of(rows))
        with pytest.raises(ValueError, match=f"holds {rows} steps"):
            replay.sample(1)

    def test_too_small_buffer_raises_with_the_required_size(self):
        with pytest.raises(ValueError, match="must hold at least 6"):
            ReplayBuffer(buffer_size=5, n_steps=1, gamma=GAMMA).add(rollout_of(5))

    def test_zero_n_steps_raise(self):
        with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
            ReplayBuffer(buffer_size=5, n_steps=0, gamma=GAMMA)


def test_saved_state_continues_identically(tmp_path):
    rollout = rollout_of(40)
    parts = [Rollout(*(column[rows] for column in rollout)) for rows in torch.arange(40).split(4)]
    whole = ReplayBuffer(buffer_size=12, n_steps=2, gamma=GAMMA)
    for part in parts[:6]:
        whole.add(part)
    torch.save(whole.state_dict(), tmp_path / "replay.pt")
    resumed = ReplayBuffer(buffer_size=12, n_steps=2, gamma=GAMMA)
    resumed.load_state_dict(torch.load(tmp_path / "replay.pt", weights_only=True))
    for part in parts[6:]:
        whole.add(part)
        resumed.add(part)
        draws = []
        for replay in (whole, resumed):
            torch.manual_seed(1)
            draws.append(replay.sample(20))
        assert all(torch.equal(one, other) for one, other in zip(*draws, strict=True))
