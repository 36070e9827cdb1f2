from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from scipy import stats

from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.vector_env import VectorEnvAdapter

ALPHA = 1e-6  # false-alarm rate of a statistical test


@pytest.fixture(scope="module")
def lake():
    return FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)


@pytest.fixture(scope="module")
def cliff():
    return FiniteMDP.from_gymnasium(gymnasium.make("CliffWalking-v1"), gamma=0.99)


@pytest.mark.parametrize("success_rate", [1 / 3, 0.8])
def test_next_states_follow_the_transition_probabilities(success_rate):
    """Chi-squared test of the next states of one state and action, in 30,000 environments."""
    lake = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1", success_rate=success_rate), gamma=0.99)
    envs = MDPVectorEnv(lake, num_envs=30_000)
    envs.reset(seed=1)
    envs.step_tensor(torch.full((30_000,), 1))
    before = envs.state.clone()
    after = envs.step_tensor(torch.full((30_000,), 2))[0]
    for state in (0, 1, 4):
        place = before == state
        counts = after[place].bincount(minlength=16).numpy()
        likely = lake.transition[state, 2].numpy()
        assert counts[likely == 0].sum() == 0
        assert stats.chisquare(counts[likely > 0], likely[likely > 0] * place.sum().item()).pvalue > ALPHA
        shifted = likely[likely > 0] + np.array([0.05, 0, -0.05])
        assert stats.chisquare(counts[likely > 0], shifted * place.sum().item()).pvalue < ALPHA


def test_initial_states_follow_the_initial_distribution():
    taxi = FiniteMDP.from_gymnasium(gymnasium.make("Taxi-v4"), gamma=0.99)
    states = torch.from_numpy(MDPVectorEnv(taxi, num_envs=30_000).reset(seed=2)[0])
    counts = states.bincount(minlength=500)
    assert (counts[taxi.initial == 0] == 0).all()
    assert stats.chisquare(counts[taxi.initial > 0].numpy()).pvalue > ALPHA


def test_deterministic_mdp_steps_like_the_gymnasium_environment(cliff):
    actions = torch.randint(4, (200,), generator=torch.Generator().manual_seed(3))
    original, ours = gymnasium.make("CliffWalking-v1"), MDPVectorEnv(cliff, num_envs=1)
    state, _ = original.reset(seed=0)
    assert ours.state.item() == state
    for action in actions:
        state, reward, terminated, truncated, _ = original.step(action.item())
        row = ours.step(action[None].numpy())[:4]
        assert [x.item() for x in row] == [state, reward, terminated, truncated]
        assert not terminated


class TestEndOfEpisode:
    def test_termination_is_followed_by_a_step_that_only_resets(self, cliff):
        envs = MDPVectorEnv(cliff, num_envs=1)
        envs.reset(seed=0)
        along = [0] + [1] * 11 + [2]  # up, along the cliff, down to the goal
        rows = [envs.step(np.array([action])) for action in along]
        assert [row[2].item() for row in rows] == [False] * 12 + [True]
        assert rows[-1][0].item() == 47
        state, reward, terminated, truncated, _ = envs.step(np.array([1]))  # ignored; otherwise off the cliff
        assert (state.item(), reward.item(), terminated.item(), truncated.item()) == (36, 0, False, False)
        assert envs.step(np.array([0]))[0].item() == 24

    def test_horizon_truncates_without_termination(self, cliff):
        envs = MDPVectorEnv(replace(cliff, horizon=3), num_envs=2)
        envs.reset(seed=0)
        truncated = [envs.step(np.array([0, 0]))[3].tolist() for _ in range(8)]
        assert truncated == [[step in (2, 6)] * 2 for step in range(8)]

    def test_step_can_terminate_and_truncate(self, cliff):
        envs = MDPVectorEnv(replace(cliff, horizon=13), num_envs=1)
        for action in [0] + [1] * 11 + [2]:
            terminated, truncated = envs.step(np.array([action]))[2:4]
        assert terminated.item()
        assert truncated.item()


class TestReproducibility:
    def test_episodes_depend_on_the_seed_alone(self, lake):
        def play(seed):
            envs = MDPVectorEnv(lake, num_envs=20)
            envs.reset(seed=seed)
            return torch.stack([envs.step_tensor(torch.full((20,), 2))[0] for _ in range(20)])

        assert torch.equal(play(1), play(1))
        assert not torch.equal(play(1), play(2))

    def test_saved_state_continues_identically(self, lake):
        envs, other = MDPVectorEnv(lake, num_envs=20), MDPVectorEnv(lake, num_envs=20)
        for _ in range(7):
            envs.step_tensor(torch.full((20,), 2))
        other.load_state_dict(envs.state_dict())
        for _ in range(30):
            actions = torch.randint(4, (20,))
            for one, two in zip(envs.step_tensor(actions), other.step_tensor(actions), strict=True):
                assert torch.equal(one, two)

    def test_state_of_another_number_of_environments_raises(self, lake):
        with pytest.raises(ValueError, match="has 3 sub-environments, expected 2"):
            MDPVectorEnv(lake, num_envs=2).load_state_dict(MDPVectorEnv(lake, num_envs=3).state_dict())


def test_adapter_accepts_an_mdp_vector_env(lake):
    envs = VectorEnvAdapter(MDPVectorEnv(lake, num_envs=5))
    envs.reset(seed=1)
    for _ in range(50):
        step = envs.step(torch.full((5,), 2))
        assert step.next_observation.shape == step.reward.shape == step.mask.shape == (5,)
    assert envs.action_space.n == 4


def test_num_envs_must_be_positive(lake):
    with pytest.raises(ValueError, match="at least 1"):
        MDPVectorEnv(lake, num_envs=0)
