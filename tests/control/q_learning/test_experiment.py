import gymnasium
import pytest
import torch

from zoo.cli._commands import evaluate, train
from zoo.control._evaluation import EpisodeEvaluator, ExactEvaluator
from zoo.control.envs.mdp import known_dynamics
from zoo.control.q_learning.experiment import DeepQLearningExperiment, TabularQLearningExperiment
from zoo.control.q_learning.module import QLearning
from zoo.training import read_status


def tabular(env="FrozenLake-v1", **options):
    return TabularQLearningExperiment(env, seed=1, batch_size=16, **options)


class TestTabularExperiment:
    def test_table_has_the_size_of_the_environment(self):
        assert tabular().module.policy.q.values.shape == (16, 4)
        assert tabular("Taxi-v4").module.policy.q.values.shape == (500, 6)

    def test_infinite_observation_space_raises(self):
        with pytest.raises(ValueError, match=r"that of CartPole-v1 is not finite: Box.*choose model=dqn"):
            tabular("CartPole-v1")

    @pytest.mark.parametrize("env_kwargs", [{"is_slippery": False}, {"map_name": "8x8"}], ids=str)
    def test_exact_evaluation_uses_the_env_kwargs(self, env_kwargs):
        made = tabular(env_kwargs=env_kwargs)
        expected = known_dynamics(gymnasium.make("FrozenLake-v1", **env_kwargs), 0.99)
        assert isinstance(made.evaluator, ExactEvaluator)
        assert torch.equal(made.evaluator.mdp.transition, expected.transition)

    @pytest.mark.parametrize(
        ("env", "env_kwargs", "states", "actions"),
        [("Blackjack-v1", {}, 32 * 11 * 2, 2), ("Taxi-v4", {"fickle_passenger": True}, 500, 6)],
        ids=["no P", "a P that does not tell all"],
    )
    def test_unknown_dynamics_are_evaluated_by_episodes(self, env, env_kwargs, states, actions):
        made = tabular(env, env_kwargs=env_kwargs, gamma=1.0, num_envs=2)
        assert isinstance(made.evaluator, EpisodeEvaluator)
        assert made.module.policy.q.values.shape == (states, actions)

    @pytest.mark.usefixtures("without_type_checks", "no_pictures")
    def test_custom_environment_is_learned(self, corridor, composed, tmp_path, monkeypatch):
        """Seven cells, observed as two digits; two binary actions; the goal has reward 1, and a step costs 0.01."""
        monkeypatch.setattr("zoo.control.q_learning.experiment._N_EVAL_EPISODES", 4)
        options = ["num_envs=16", "eval_freq=800", "total_timesteps=6400", "exploration_steps=3200"]
        config = composed(["model=q_learning", f"env={corridor}", *(f"model.{o}" for o in options)])
        outcome = train(config, tmp_path, "command", trust=True)
        assert outcome.metrics["greedy_return_mean"] == pytest.approx(0.94)
        assert "Corridor-v0 after" in outcome.summary
        action, _ = QLearning.load(outcome.checkpoint).predict((0, 1), deterministic=True)
        assert action.tolist() == [1, 1]

    def test_gamma_of_1_raises_with_exact_evaluation(self):
        with pytest.raises(ValueError, match=r"gamma must be below 1 for a table: .* may never end an episode"):
            tabular("CliffWalking-v1", gamma=1.0)

    def test_reserved_env_kwargs_raise(self):
        with pytest.raises(ValueError, match=r"env_kwargs\.num_envs is not an option of an environment: remove it"):
            tabular(env_kwargs={"num_envs": 3})

    def test_negative_train_freq_raises(self):
        with pytest.raises(ValueError, match="train_freq must be 0 or more, got -3"):
            tabular(train_freq=-3)

    def test_unknown_environment_raises_with_similar_ids(self):
        with pytest.raises(
            ValueError, match=r"no environment 'FrozenLak-v1' is registered in Gymnasium; did you mean FrozenLake-v1"
        ):
            tabular("FrozenLak-v1")


class TestDeepExperiment:
    def test_network_fits_the_environment(self):
        module = DeepQLearningExperiment("Acrobot-v1", seed=1, batch_size=16, buffer_size=1000).module
        assert module.hparams["observation_shape"] == [6]
        assert module.hparams["num_actions"] == 3
        assert module.hparams["reward_threshold"] == -100

    def test_learning_rate_decays_over_total_timesteps_by_default(self):
        for given, falls_for in (({}, 70_000), ({"lr_decay_steps": 5000}, 5000)):
            module = DeepQLearningExperiment(
                "CartPole-v1", 1, 16, buffer_size=1000, total_timesteps=70_000, **given
            ).module
            assert module.hparams["lr_decay_steps"] == falls_for

    @pytest.mark.parametrize(("learning_starts", "enough"), [(90_000, 94_096), (200_000, 204_096)])
    def test_training_that_ends_before_learning_starts_raises(self, learning_starts, enough):
        options = {
            "env": "CartPole-v1",
            "seed": 1,
            "batch_size": 16,
            "buffer_size": 300_000,
            "learning_starts": learning_starts,
        }
        with pytest.raises(ValueError, match=f"total_timesteps must be at least {enough}, as nothing is learned"):
            DeepQLearningExperiment(**options, total_timesteps=enough - 1)
        DeepQLearningExperiment(**options, total_timesteps=enough)

    def test_multi_discrete_actions_are_enumerated(self, corridor):
        module = DeepQLearningExperiment(corridor, seed=1, batch_size=16, buffer_size=1000, trust=True).module
        assert module.hparams["num_actions"] == 4

    def test_continuous_actions_raise(self):
        with pytest.raises(
            ValueError, match=r"a discrete action space of at most 10,000 actions, and that of Pendulum-v1"
        ):
            DeepQLearningExperiment("Pendulum-v1", seed=1, batch_size=16)


@pytest.mark.parametrize(
    ("model", "words"),
    [("q_learning", "of the greedy policy at the start"), ("dqn", "of the greedy policy (95 % interval")],
)
def test_run_reports_its_last_policy_and_its_best_one(model, words, finished, tmp_path):
    status = read_status(finished(model) / "status.json")
    last, best = (evaluate(finished(model) / "checkpoints" / f"{name}.ckpt", tmp_path) for name in ("last", "best"))
    (name,) = (key.removeprefix("best_") for key in status["metrics"] if key.startswith("best_"))
    assert status["metrics"].pop("solved_of_last_10") == 0
    assert status["metrics"] == {**last.metrics, f"best_{name}": best.metrics[name]}
    assert status["metrics"]["env_steps"] == QLearning.load(last.checkpoint).env_steps
    assert words in last.summary


def test_training_stops_at_the_first_evaluation_that_solves_the_task(composed, tmp_path):
    options = ["num_envs=64", "eval_freq=25_600", "exploration_final=0.1", "exploration_steps=100_000"]
    outcome = train(
        composed(["model=q_learning", "env=CliffWalking-v1", *(f"model.{option}" for option in options)]),
        tmp_path,
        "command",
    )
    assert outcome.metrics["env_steps"] == outcome.metrics["env_steps_to_solved"] < 400_000
    assert "solved (-12.2489) after" in outcome.summary
    assert read_status(tmp_path / "status.json")["state"] == "finished"
