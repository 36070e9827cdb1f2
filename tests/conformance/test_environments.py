"""Properties of every family of environments in the README: classic control, toy text, MinAtar, Atari."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.control._evaluation import evaluate_policy
from zoo.control.envs import VectorEnvAdapter, make_eval_vector_env, make_vector_env
from zoo.control.envs._wrappers import ClearLastAction
from zoo.control.policy_gradient import action_spec, make_policy
from zoo.control.rollout_dataset import RolloutDataset

GAMES = ["Asterix", "Breakout", "Freeway", "Seaquest", "SpaceInvaders"]
FAMILIES = [
    *("CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0"),
    *("FrozenLake-v1", "Blackjack-v1", "Taxi-v4", "CliffWalking-v1"),
    *(f"MinAtar/{game}-v1" for game in GAMES),
    "ALE/Pong-v5",
]

pytestmark = [
    pytest.mark.filterwarnings("ignore:an episode of .* lasted longer"),
    pytest.mark.usefixtures("without_type_checks"),
]


def policy_for(envs):
    torch.manual_seed(0)
    return make_policy(envs.observation_shape, action_spec(envs.action_space), (4,))


def short(name, copies, make=make_vector_env):
    """Return copies with short episodes; few of Atari, which is slow."""
    atari = name.startswith("ALE/")
    return VectorEnvAdapter(make(name, 4 if atari else copies, max_episode_steps=12 if atari else 40))


@pytest.mark.parametrize("name", FAMILIES)
class TestEveryFamily:
    def test_evaluation_depends_on_the_seed_and_not_on_earlier_episodes(self, name):
        envs = short(name, 16, make_eval_vector_env)
        policy = policy_for(envs)
        first = evaluate_policy(policy, envs, seed=5)
        evaluate_policy(policy, envs, seed=6)
        assert evaluate_policy(policy, envs, seed=5) == first

    def test_resumed_rollouts_equal_those_of_the_uninterrupted_run(self, name):
        """Resumed at the end of an epoch, in new environments."""
        policy = policy_for(short(name, 1))
        uninterrupted = RolloutDataset(short(name, 16), policy, n_steps=10, num_rollouts=3, seed=1)
        torch.manual_seed(1)
        list(uninterrupted)
        state, random = uninterrupted.state_dict(), torch.get_rng_state()
        expected = [batch.rollout for batch in uninterrupted]
        resumed = RolloutDataset(short(name, 16), policy, n_steps=10, num_rollouts=3, seed=1)
        resumed.load_state_dict(state)
        torch.set_rng_state(random)
        for one, other in zip(expected, (batch.rollout for batch in resumed), strict=True):
            assert all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_minatar_games_forget_their_last_action_at_a_reset(monkeypatch):
    """Without ClearLastAction some of 64 games repeat the last action of the previous episode at their first step."""

    def first_steps():
        envs = VectorEnvAdapter(make_vector_env("MinAtar/Breakout-v1", 64))
        rows = []
        for seed in (3, 4, 3):
            envs.reset(seed)
            actions = np.random.default_rng(0).integers(3, size=(6, 64))
            rows.append(np.stack([envs.step(torch.from_numpy(action)).next_observation for action in actions]))
        return (rows[0] == rows[2]).all()

    assert first_steps()
    monkeypatch.setattr(ClearLastAction, "reset", lambda self, **options: self.env.reset(**options))
    assert not first_steps()


@pytest.mark.slow
@pytest.mark.parametrize(("module", "parts"), [("gymnasium", 1), ("minatar", 1), ("ale_py", 8)])
def test_every_registered_environment_trains_or_is_rejected_in_a_sentence(module, parts):
    driver = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "environments.py"))
    results = driver["results_of"](module, parts)
    assert [result for result in results if result.outcome == "traceback"] == []
    assert any(result.outcome == "trains" for result in results)
