import csv

import gymnasium
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from examples.exploration.regret import (
    SCHEDULES,
    Regret,
    learning_regret,
    start_value_gaps,
    summarize,
    train_with_regret,
    write_csv,
)
from zoo.control.envs.mdp import FiniteMDP
from zoo.control.envs.mdp_env import MDPVectorEnv
from zoo.control.envs.planning import policy_evaluation, value_iteration
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.q_learning.module import QLearning
from zoo.control.rollout_dataset import RolloutDataset

pytestmark = [
    pytest.mark.usefixtures("without_type_checks"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]


@pytest.fixture(scope="module")
def lake():
    return FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1"), gamma=0.99)


def uniform_gap(mdp):
    uniform = torch.full((mdp.num_states, mdp.num_actions), 1 / mdp.num_actions, dtype=torch.float64)
    return (value_iteration(mdp).amax(-1) - policy_evaluation(mdp, uniform))[0].item()


STILL = {"exploration_initial": 1.0, "exploration_final": 1.0, "exploration_schedule": "linear"}


def test_regret_of_a_uniform_policy_is_its_gap_times_the_episodes(lake):
    regret = learning_regret(lake, "epsilon_greedy", episodes=1000, seed=1, **STILL)
    np.testing.assert_allclose(regret.cumulative, regret.episodes * uniform_gap(lake), rtol=1e-6)
    assert regret.cumulative[-1] > 500


def test_optimal_values_have_no_regret_if_the_policy_is_greedy(lake):
    model = QLearning(lake.num_states, lake.num_actions, exploration_initial=0.0)
    model.policy.q.values.data.copy_(value_iteration(lake))
    exploring, greedy = start_value_gaps(model, lake, value_iteration(lake).amax(-1))
    assert exploring == pytest.approx(0, abs=1e-9)
    assert greedy == pytest.approx(0, abs=1e-9)
    model.policy.parameter.fill_(0.5)
    exploring, greedy = start_value_gaps(model, lake, value_iteration(lake).amax(-1))
    assert exploring > 0.3 > 1e-9 > greedy


def test_episodes_are_counted_when_they_start(lake):
    """In a corridor of three steps each fourth step resets: a rollout of four steps is one episode."""
    step = torch.eye(4, dtype=torch.float64).roll(1, 1)[:, None]
    step[3] = torch.eye(4, dtype=torch.float64)[3]
    corridor = FiniteMDP(
        step, torch.ones(4, 1, 4).double(), (step > 0) & (torch.arange(4) == 3), step[3, 0].roll(1), 0.9
    )
    regret = learning_regret(corridor, "boltzmann", episodes=20, seed=1, num_envs=4, train_freq=4)
    assert regret.episodes.tolist() == [4, 8, 12, 16, 20]
    assert regret.env_steps.tolist() == [12, 24, 36, 48, 60]
    np.testing.assert_allclose(regret.cumulative, 0, atol=1e-9)


@pytest.mark.parametrize("exploration", SCHEDULES)
def test_regret_per_episode_decreases_with_learning(exploration):
    ice = FiniteMDP.from_gymnasium(gymnasium.make("FrozenLake-v1", is_slippery=False), gamma=0.99)
    regret = learning_regret(ice, exploration, episodes=6000, seed=1, exploration_steps=20_000)
    price = np.diff(regret.cumulative) / np.diff(regret.episodes).clip(1)
    assert price[0] > 0.9 > 0.1 > price[-1]
    assert regret.greedy_gap[-1] < regret.greedy_gap[0]


def test_training_with_regret_equals_a_run(lake):
    def made():
        torch.manual_seed(0)
        model = QLearning(lake.num_states, lake.num_actions, exploration_steps=2000, exploration_final=0.2)
        envs = VectorEnvAdapter(MDPVectorEnv(lake, num_envs=64))
        return model, RolloutDataset(envs, model.policy, n_steps=4, num_rollouts=20, seed=5)

    (model, rollouts), (other, others) = made(), made()
    pl.seed_everything(1, verbose=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **quiet)
    trainer.fit(model, rollouts)
    pl.seed_everything(1, verbose=False)
    train_with_regret(other, others, lake, episodes=10**6)
    assert model.policy.q.values.abs().max() > 0.1
    torch.testing.assert_close(other.policy.q.values, model.policy.q.values, rtol=0, atol=0)
    assert model.policy.parameter == other.policy.parameter < 1


def test_regret_depends_on_the_seed_alone_and_not_on_the_global_random_state(lake):
    before = torch.get_rng_state()
    one, same, other = (learning_regret(lake, "boltzmann", episodes=600, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(one, same)
    assert one.env_steps.tolist() != other.env_steps.tolist()


def test_invalid_arguments_raise(lake):
    with pytest.raises(ValueError, match=r"^there is no exploration 'greedy'; choose one of epsilon_greedy, boltzmann"):
        learning_regret(lake, "greedy", episodes=10, seed=1)
    with pytest.raises(ValueError, match=r"^episodes must be at least 1, got 0"):
        learning_regret(lake, "boltzmann", episodes=0, seed=1)


def test_csv_has_a_line_per_rollout(tmp_path):
    run = Regret(*(np.arange(3.0) + number for number in range(4)))
    write_csv(tmp_path / "regret.csv", [7, 8], {"boltzmann": [run, run]})
    with (tmp_path / "regret.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert [rows[5][key] for key in ("exploration", "seed", "env_steps", "greedy_gap")] == [
        "boltzmann",
        "8",
        "2.0",
        "5.0",
    ]


def test_summary_has_mean_interval_and_gap():
    ones = np.ones(1)
    said = summarize("boltzmann", [Regret(ones, 1000 * ones, value * ones, 0.25 * ones) for value in (100, 200, 300)])
    assert said.startswith("boltzmann: regret 200 after 1,000 episodes (3 seeds, 95 % interval 100 to 300);")
    assert "0.2500 below" in said
