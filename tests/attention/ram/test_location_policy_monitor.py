import logging
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
import torch

from zoo.attention.ram.experiment import _LocationPolicyMonitor as LocationPolicyMonitor

HEALTHY = {"train_error": 0.5, "reward_variance": 0.2, "clipped_locations": 0.3}


@pytest.fixture
def after_epochs(caplog):
    """Warnings after epochs with these metrics."""

    def after_epochs(*epochs):
        monitor = LocationPolicyMonitor()
        with caplog.at_level(logging.WARNING):
            for metrics in epochs:
                metrics = {name: torch.tensor(value) for name, value in metrics.items()}
                monitor.on_train_epoch_end(Mock(pl.Trainer, callback_metrics=metrics), Mock(pl.LightningModule))
        return [record.getMessage() for record in caplog.records]

    return after_epochs


def test_learning_raises_no_warning(after_epochs):
    assert after_epochs(HEALTHY, HEALTHY) == []


def test_missing_rewards_raise_one_warning(after_epochs):
    (warning,) = after_epochs(*[HEALTHY | {"reward_variance": 0.0}] * 3)
    assert "No prediction of an epoch was correct" in warning


def test_clipped_locations_raise_one_warning(after_epochs):
    stuck = [HEALTHY | {"clipped_locations": fraction} for fraction in (0.95, 0.97)]
    (warning,) = after_epochs(*stuck)
    assert "95% of the sampled locations lie outside" in warning
    assert "Lower model.policy_weight or model.location_std, or raise model.location_range" in warning


def test_each_reason_raises_its_own_warning(after_epochs):
    assert len(after_epochs(HEALTHY | {"reward_variance": 0.0, "clipped_locations": 1.0})) == 2


def test_model_without_errors_raises_no_warning(after_epochs):
    assert after_epochs(HEALTHY | {"reward_variance": 0.0, "train_error": 0.0}) == []


def test_metrics_of_other_location_policies_are_not_checked(after_epochs):
    assert after_epochs({"train_error": 0.9, "cross_entropy": 2.3}) == []
