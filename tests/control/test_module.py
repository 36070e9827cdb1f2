from types import SimpleNamespace

import pytest
import torch

from zoo.control import PolicyGradient
from zoo.control._module import ControlModule, StopOnTotalTimesteps


def saved(model):
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    return checkpoint


def logged_means(model, monkeypatch):
    logged = {}
    monkeypatch.setattr(model, "log_dict", logged.update)
    model.on_train_epoch_end()
    return logged


def test_interrupted_epoch_has_the_same_means_as_an_uninterrupted_one(monkeypatch):
    rows = [({"loss": float(i), "rare": 2.0 * i} if i % 2 else {"loss": float(i)}, 10.0 * i) for i in range(5)]
    whole, first, second = (PolicyGradient([4], 2) for _ in range(3))
    for row in rows:
        whole.add_metrics(*row)
    for row in rows[:3]:
        first.add_metrics(*row)
    second.on_load_checkpoint(saved(first))
    for row in rows[3:]:
        second.add_metrics(*row)
    expected = {"loss": 2.0, "rare": 4.0, "episode_return": 40.0}
    assert logged_means(second, monkeypatch) == logged_means(whole, monkeypatch) == expected
    assert not logged_means(second, monkeypatch)


def test_saved_metrics_of_an_epoch_do_not_change_with_later_updates():
    model = PolicyGradient([4], 2)
    model.add_metrics({"loss": 1.0}, None)
    checkpoint = saved(model)
    model.add_metrics({"loss": 3.0}, None)
    assert checkpoint == {"epoch_metrics": {"loss": [1.0]}}


@pytest.fixture
def module():
    """Module after 100 steps of a task with reward threshold 475."""

    def make(reward_threshold=475.0, stop=True):
        return SimpleNamespace(
            hparams={"reward_threshold": reward_threshold, "stop_on_reward_threshold": stop},
            env_steps=torch.tensor(100),
            solved_after=torch.tensor(-1),
            trainer=SimpleNamespace(should_stop=False),
        )

    return make


@pytest.mark.parametrize(("score", "solved"), [(474.9, False), (475.0, True), (500.0, True), (float("nan"), False)])
def test_task_is_solved_at_or_above_its_reward_threshold(score, solved, module):
    rule = module()
    ControlModule.check_reward_threshold(rule, score)
    assert rule.trainer.should_stop is solved
    assert rule.solved_after == (100 if solved else -1)


def test_task_without_a_reward_threshold_is_never_solved(module):
    rule = module(reward_threshold=None)
    ControlModule.check_reward_threshold(rule, 1e9)
    assert not rule.trainer.should_stop
    assert rule.solved_after == -1


def test_first_solution_is_recorded_if_training_continues(module):
    rule = module(stop=False)
    ControlModule.check_reward_threshold(rule, 480.0)
    rule.env_steps.fill_(200)
    ControlModule.check_reward_threshold(rule, 490.0)
    assert not rule.trainer.should_stop
    assert rule.solved_after == 100


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(("limit", "stops"), [(99, True), (100, True), (101, False)])
def test_training_stops_once_total_timesteps_are_reached(limit, stops, module):
    played = module()
    StopOnTotalTimesteps(limit).on_validation_end(played.trainer, played)
    assert played.trainer.should_stop is stops


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.parametrize(
    ("steps", "solved_after", "stop", "finished"),
    [(100, -1, True, True), (999, 50, True, True), (999, 50, False, False), (999, -1, True, False)],
    ids=["spent", "solved", "solved, to go on", "neither"],
)
def test_finished_training_does_not_continue_when_resumed(steps, solved_after, stop, finished, module):
    played, again = module(stop=stop), module(stop=stop)
    played.solved_after.fill_(solved_after)
    rule, resumed = StopOnTotalTimesteps(steps), StopOnTotalTimesteps(steps)
    rule.on_validation_end(played.trainer, played)
    resumed.load_state_dict(rule.state_dict())
    resumed.on_train_start(again.trainer, again)
    assert again.trainer.should_stop is finished


@pytest.mark.usefixtures("without_type_checks")
def test_finished_training_continues_when_resumed_with_more_timesteps(module):
    played = module()
    rule, longer = StopOnTotalTimesteps(100), StopOnTotalTimesteps(200)
    rule.on_validation_end(played.trainer, played)
    again = module()
    longer.load_state_dict(rule.state_dict())
    longer.on_train_start(again.trainer, again)
    assert played.trainer.should_stop
    assert not again.trainer.should_stop
