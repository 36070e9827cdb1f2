import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.spaces import Box, Dict, MultiBinary

from zoo.cli._commands import evaluate, train
from zoo.control.envs._wrappers import EnvError
from zoo.control.policy_gradient.experiment import PolicyGradientExperiment
from zoo.control.policy_gradient.module import PolicyGradient
from zoo.control.policy_gradient.policies import CategoricalPolicy, GaussianPolicy
from zoo.training import read_status


def experiment(env="CartPole-v1", estimator=None, **options):
    estimator = estimator or {"baseline": "learned"}
    return PolicyGradientExperiment(env, estimator, seed=1, **{"n_eval_episodes": 2, **options})


class TestModel:
    @pytest.mark.parametrize(
        ("env", "policy", "shape", "actions", "reward_threshold"),
        [
            ("CartPole-v1", CategoricalPolicy, [4], 2, 475),
            ("Acrobot-v1", CategoricalPolicy, [6], 3, -100),
            ("Pendulum-v1", GaussianPolicy, [3], [(-2.0, 2.0)], None),
            ("FrozenLake-v1", CategoricalPolicy, [16], 4, 0.7),
            ("MinAtar/Breakout-v0", CategoricalPolicy, [10, 10, 4], 6, None),
        ],
    )
    def test_policy_fits_the_environment(self, env, policy, shape, actions, reward_threshold):
        module = experiment(env).module
        assert type(module.policy) is policy
        options = module.hparams
        assert (options["observation_shape"], options["actions"], options["reward_threshold"]) == (
            shape,
            actions,
            reward_threshold,
        )

    def test_options_are_passed_to_the_module(self):
        options = experiment(gamma=0.9, gae_lambda=1.0).module.hparams
        assert (options["gamma"], options["gae_lambda"], options["seed"]) == (0.9, 1.0, 1)

    def test_learning_rate_decays_over_total_timesteps_by_default(self):
        assert experiment(total_timesteps=300_000).module.hparams["decay_steps"] == 300_000
        assert experiment(total_timesteps=300_000, decay_steps=5000).module.hparams["decay_steps"] == 5000

    @pytest.mark.parametrize(
        ("name", "steps"),
        [("cartpole", 90_000), ("minatar_asterix", 5_000_000), ("minatar_breakout", 5_000_000)],
    )
    def test_recorded_experiments_keep_their_decay_steps(self, name, steps, composed):
        assert composed([f"experiment=policy_gradient_{name}"])["model"]["decay_steps"] == steps


class TestRollouts:
    def test_rollouts_are_truncated_with_a_value_function(self):
        batch = next(iter(experiment().loaders.train(0, 1)))
        assert batch.rollout.reward.shape == (16, 16)

    @pytest.mark.parametrize("baseline", ["none", "moving_average", "leave_one_out", "20"])
    def test_rollouts_are_complete_episodes_without_a_value_function(self, baseline):
        batch = next(iter(experiment(estimator={"baseline": baseline}, num_envs=2).loaders.train(0, 1)))
        assert (batch.rollout.done & batch.rollout.mask).sum(0).tolist() == [1, 1]

    def test_rollouts_may_be_complete_episodes_with_a_value_function(self):
        batch = next(iter(experiment(n_steps=0, num_envs=2).loaders.train(0, 1)))
        assert (batch.rollout.done & batch.rollout.mask).sum(0).tolist() == [1, 1]

    def test_n_steps_raise_without_a_value_function(self):
        with pytest.raises(ValueError, match=r"n_steps=8 truncates episodes, .*remove n_steps"):
            experiment(estimator={"baseline": "none"}, n_steps=8)

    def test_training_on_complete_episodes_ends_after_total_timesteps(self, composed, tmp_path):
        options = ["num_envs=4", "total_timesteps=4000", "n_eval_episodes=2"]
        outcome = train(
            composed(
                [
                    "model=policy_gradient",
                    "estimator.baseline=leave_one_out",
                    *(f"model.{option}" for option in options),
                ]
            ),
            tmp_path,
            "command",
        )
        assert 4000 <= outcome.metrics["env_steps"] < 4000 + 2 * 4 * 500  # two rollouts between evaluations


class TestErrors:
    def test_unknown_environment_raises_with_similar_ids(self):
        with pytest.raises(
            ValueError, match=r"no environment 'CartPol-v1' is registered in Gymnasium; did you mean CartPole-v1"
        ):
            experiment("CartPol-v1")

    @pytest.mark.parametrize("name", ["num_envs", "tabular", "wrappers"])
    def test_reserved_env_kwargs_raise(self, name):
        with pytest.raises(ValueError, match=rf"env_kwargs\.{name} is not an option of an environment: remove it"):
            experiment(env_kwargs={name: 3})

    def test_invalid_gamma_raises(self):
        with pytest.raises(ValueError, match=r"gamma must be between 0 and 1, got 1\.5"):
            experiment(gamma=1.5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_envs": 0}, "num_envs must be a whole number of 1 or more, got 0"),
            ({"n_eval_episodes": 0}, "n_eval_episodes must be a whole number of 1 or more, got 0"),
            ({"eval_freq": 0}, "eval_freq must be a whole number of 1 or more, got 0"),
            ({"n_steps": -3}, "n_steps must be 0 or more, got -3"),
            ({"decay_steps": 0}, "decay_steps must be a whole number of 1 or more, or null, got 0"),
        ],
        ids=str,
    )
    def test_invalid_numbers_raise(self, options, message):
        with pytest.raises(ValueError, match=message):
            experiment(**options)

    @pytest.mark.parametrize("baseline", ["leave_one_out", "learned_leave_one_out"])
    def test_leave_one_out_raises_with_one_environment(self, baseline):
        with pytest.raises(ValueError, match=rf"{baseline} compares .* set model\.num_envs to 2 or more"):
            experiment(estimator={"baseline": baseline}, num_envs=1)

    def test_several_devices_raise(self, composed, tmp_path):
        config = composed(["model=policy_gradient", "trainer.devices=2", "model.n_eval_episodes=2"])
        with pytest.raises(ValueError, match=r"devices=2 .* acts in environments trains on one"):
            train(config, tmp_path, "command")

    def test_unsupported_action_space_raises(self, monkeypatch):
        class Piano(gymnasium.Env):
            observation_space, action_space = Box(0, 1, (1,)), Dict(keys=MultiBinary(88))

            def reset(self, *, seed=None, options=None):
                return np.zeros(1, np.float32), {}

        monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
        gymnasium.register("Piano-v0", entry_point=Piano)
        with pytest.raises(ValueError, match="no policy supports the action space Dict"):
            experiment("Piano-v0")


@pytest.mark.filterwarnings("ignore:an episode of MinAtar")
def test_game_is_learned_from_images(composed, tmp_path):
    overrides = ["num_envs=4", "hidden=[8]", "eval_freq=64", "total_timesteps=128", "n_eval_episodes=2"]
    small = [f"model.{option}" for option in overrides]
    outcome = train(composed(["experiment=policy_gradient_minatar_breakout", *small]), tmp_path, "command")
    assert 0 <= outcome.metrics["eval_return_mean"] < 10
    assert "MinAtar/Breakout-v0 after 1" in outcome.summary


def test_run_resumes_after_an_environment_failed(composed, tmp_path, monkeypatch):
    options = ["num_envs=4", "eval_freq=64", "total_timesteps=640", "n_eval_episodes=2"]
    steps = []
    step = CartPoleVectorEnv.step

    def fragile(self, action):
        steps.append(len(action))
        if steps.count(4) > 40:
            raise RuntimeError("the pole is broken")
        return step(self, action)

    monkeypatch.setattr(CartPoleVectorEnv, "step", fragile)
    config = composed(["model=policy_gradient", *(f"model.{option}" for option in options)])
    with pytest.raises(EnvError, match="CartPole-v1 raised RuntimeError: the pole is broken"):
        train(config, tmp_path, "command")
    assert read_status(tmp_path / "status.json")["state"] == "failed"
    monkeypatch.setattr(CartPoleVectorEnv, "step", step)
    train(config, tmp_path, "command")
    train(config, tmp_path / "whole", "command")
    ends = [PolicyGradient.load(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path, tmp_path / "whole")]
    assert all(torch.equal(x, y) for x, y in zip(*(end.state_dict().values() for end in ends), strict=True))


class TestFinishedRun:
    def test_run_reports_its_last_policy_and_its_best_one(self, finished, tmp_path):
        folder = finished("policy_gradient")
        status = read_status(folder / "status.json")
        last, best = (evaluate(folder / "checkpoints" / f"{name}.ckpt", tmp_path) for name in ("last", "best"))
        assert status["state"] == "finished"
        beside = {"best_eval_return_mean": best.metrics["eval_return_mean"], "solved_of_last_10": 0.0}
        assert status["metrics"] == {**last.metrics, **beside}
        assert last.metrics["eval_return_low"] <= last.metrics["eval_return_mean"] <= last.metrics["eval_return_high"]

    def test_run_counts_the_steps_taken(self, finished):
        folder = finished("policy_gradient")
        steps = PolicyGradient.load(folder / "checkpoints" / "last.ckpt").env_steps
        assert read_status(folder / "status.json")["metrics"]["env_steps"] == steps
        assert 0 < steps < 2 * 64


class TestDescribe:
    METRICS = {  # noqa: RUF012
        "eval_return_mean": 480.25,
        "eval_return_low": 470.0,
        "eval_return_high": 490.0,
        "greedy_return_mean": 500.0,
        "env_steps": 20_480.0,
    }

    def test_summary_has_the_mean_return(self):
        summary = experiment().describe(self.METRICS)
        assert "CartPole-v1 after 20,480 steps: mean return 480.2" in summary
        assert "(95 % interval 470.0 to 490.0), 500.0 of the greedy policy" in summary
        assert "solved" not in summary

    def test_summary_has_the_steps_to_the_solution(self):
        summary = experiment().describe({**self.METRICS, "env_steps_to_solved": 16_384.0})
        assert summary.endswith("first solved (475) after 16,384 steps")
