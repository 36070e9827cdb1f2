import logging
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch

from zoo.attention.ram.callbacks import LearningCheck

HEALTHY = {"train_error": 0.5, "reward_variance": 0.2, "clipped_locations": 0.3}


@pytest.fixture
def after_epochs(caplog):
    """Warnings after epochs with these figures."""

    def after_epochs(*epochs):
        check = LearningCheck()
        with caplog.at_level(logging.WARNING):
            for figures in epochs:
                metrics = {name: torch.tensor(value) for name, value in figures.items()}
                check.on_train_epoch_end(Mock(pl.Trainer, callback_metrics=metrics), Mock(pl.LightningModule))
        return [record.getMessage() for record in caplog.records]

    return after_epochs


def test_learning_is_silent(after_epochs):
    assert after_epochs(HEALTHY, HEALTHY) == []


def test_rewards_that_never_come_are_told_once(after_epochs):
    (warning,) = after_epochs(*[HEALTHY | {"reward_variance": 0.0}] * 3)
    assert "No walk of an epoch was rewarded" in warning


def test_locations_that_are_stuck_beyond_the_border_are_told_once(after_epochs):
    stuck = [HEALTHY | {"clipped_locations": fraction} for fraction in (0.95, 0.97)]
    (warning,) = after_epochs(*stuck)
    assert "95% of the locations lie beyond the border" in warning
    assert "Lower model.policy_weight or model.location_std, or widen model.span" in warning


def test_each_reason_is_told(after_epochs):
    assert len(after_epochs(HEALTHY | {"reward_variance": 0.0, "clipped_locations": 1.0})) == 2


def test_a_model_that_is_always_right_has_nothing_left_to_learn(after_epochs):
    assert after_epochs(HEALTHY | {"reward_variance": 0.0, "train_error": 0.0}) == []


def test_a_model_whose_gaze_is_given_is_not_checked(after_epochs):
    assert after_epochs({"train_error": 0.9, "cross_entropy": 2.3}) == []
