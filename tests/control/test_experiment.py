import pytest

from zoo.control._evaluation import EpisodeEvaluator
from zoo.control._experiment import COMPLETE_EPISODES, ControlExperiment, learning_curve
from zoo.control.envs.factory import make_vector_env
from zoo.control.envs.vector_env import VectorEnvAdapter
from zoo.control.policy_gradient.module import PolicyGradient


class Experiment(ControlExperiment):
    def describe(self, metrics):
        return f"played{self.describe_solution(metrics)}"


@pytest.fixture
def experiment():
    def make(n_steps=4, eval_freq=100, total_timesteps=1000, num_envs=8, name="CartPole-v1"):
        train_envs = VectorEnvAdapter(make_vector_env(name, num_envs))
        evaluator = EpisodeEvaluator(VectorEnvAdapter(make_vector_env("CartPole-v1", 4)), monitor="eval_return_mean")
        return Experiment(
            "CartPole-v1", PolicyGradient([4], 2), train_envs, evaluator, 1, n_steps, eval_freq, total_timesteps
        )

    return make


class TestLength:
    def test_evaluations_are_rounded_to_complete_rollouts(self, experiment):
        loaders = experiment().loaders
        assert len(loaders.train(0, 1)) == 3
        assert loaders.max_epochs == 1000 // 96

    def test_training_that_ends_before_the_first_evaluation_raises(self, experiment):
        with pytest.raises(ValueError, match=r"total_timesteps must be at least 96, .* got 95"):
            experiment(total_timesteps=95)

    def test_training_on_complete_episodes_is_limited_by_the_step_count(self, experiment):
        """Episodes may have 500 steps, or only one."""
        made = experiment(COMPLETE_EPISODES, eval_freq=8000, total_timesteps=16_000)
        assert len(made.loaders.train(0, 1)) == 2
        assert made.loaders.max_epochs == 16_000 // (2 * 8)
        assert [callback.total_timesteps for callback in made.callbacks()] == [16_000]

    @pytest.mark.parametrize(
        ("name", "rollouts"), [("CartPole-v1", 3), ("Acrobot-v1", 125), ("MinAtar/Breakout-v0", 3)]
    )
    def test_epoch_contains_a_complete_episode_if_environments_are_reset_at_evaluations(
        self, experiment, name, rollouts
    ):
        """Acrobot has a time limit of 500 steps and cannot save its state; MinAtar has no registered time limit."""
        assert len(experiment(name=name, total_timesteps=4000).loaders.train(0, 1)) == rollouts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": -3}, "n_steps must be 0 or more, got -3"),
        ({"eval_freq": 0}, "eval_freq must be a whole number of 1 or more, got 0"),
    ],
    ids=str,
)
def test_invalid_numbers_of_steps_raise(options, message, experiment):
    with pytest.raises(ValueError, match=message):
        experiment(**options)


def test_summary_reports_luck_if_the_threshold_exceeds_the_optimum(experiment):
    made = experiment()
    made.evaluator.reward_threshold, made.evaluator.optimum = 8, 7.93
    assert made.describe({"env_steps_to_solved": 16.0}).endswith(
        "first solved (8) after 16 steps, by luck: the optimal policy returns 7.93 on average"
    )


class TestEnd:
    def test_exit_reason_names_the_metric_that_solved_the_task(self, experiment):
        made = experiment()
        assert made.exit_reason == "all epochs done"
        made.module.solved_after.fill_(96)
        assert made.exit_reason == "solved: eval_return_mean reached 475 after 96 environment steps"

    @pytest.mark.parametrize(
        ("steps", "solved", "summary"),
        [(0, -1, ""), (950, -1, ""), (400, 400, ""), (500, -1, "500 steps of"), (2000, -1, "2,000")],
    )
    def test_summary_reports_a_length_far_from_total_timesteps(self, steps, solved, summary, experiment):
        made = experiment(total_timesteps=1000)
        made.module.env_steps.fill_(steps)
        made.module.solved_after.fill_(solved)
        assert (summary in made.describe_length()) if summary else made.describe_length() == ""


def test_fraction_done_is_that_of_the_steps_and_at_most_1(experiment):
    made = experiment(total_timesteps=1000)
    for steps, done in ((0, 0.0), (250, 0.25), (1008, 1.0)):
        made.module.env_steps.fill_(steps)
        assert made.loaders.fraction_done() == done


def test_mid_epoch_resume_requires_environments_that_can_save_their_state(experiment):
    assert experiment().loaders.supports_mid_epoch_resume
    assert not experiment(name="Acrobot-v1", total_timesteps=4000).loaders.supports_mid_epoch_resume


def test_learning_curve_contains_evaluations_only(tmp_path):
    """Rows without evaluation come from training."""
    (tmp_path / "metrics.csv").write_text("\n".join(["loss,env_steps,score", ",10,475", "0.1,12,", ",20,474"]))
    steps, scores = learning_curve(tmp_path / "metrics.csv", "score")
    assert (steps.tolist(), scores.tolist()) == ([10, 20], [475, 474])


def test_summary_reports_the_first_solution(experiment):
    made = experiment()
    assert made.describe({}) == "played"
    assert made.describe({"env_steps_to_solved": 16_384.0}) == "played\n  first solved (475) after 16,384 steps"
