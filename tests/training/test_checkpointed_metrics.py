import os

import pytest
import torch

from zoo.training import TrainingInterruptedError
from zoo.training._checkpointed_metrics import CheckpointedMetrics


class Killed(BaseException):
    """The process ends here, without any clean-up."""


class SeldomLogging:
    """Mixed in: also logs a figure at the first step of each epoch alone, and one at each step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 0:
            self.log("seldom", loss.detach(), on_step=False, on_epoch=True, batch_size=3)
        self.log("often", loss.detach(), on_step=True, on_epoch=False)
        return loss


@pytest.fixture
def trained(noisy, train):
    """Train such a module in a folder, or go on there, and give the text of its ``metrics.csv``."""

    def run(folder, *callbacks):
        torch.manual_seed(0)
        train(folder, *callbacks, module=type("Noisy", (SeldomLogging, noisy), {})())
        return (folder / "metrics.csv").read_text()

    return run


@pytest.fixture(scope="module")
def folder_of_whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def whole(folder_of_whole, trained):
    """The text of a run without interruption."""
    if (folder_of_whole / "metrics.csv").exists():
        return (folder_of_whole / "metrics.csv").read_text()
    return trained(folder_of_whole)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7])
def test_resumed_run_ends_with_the_rows_and_means_of_an_uninterrupted_one(step, trained, interrupt, whole, tmp_path):
    with pytest.raises(TrainingInterruptedError):
        trained(tmp_path, interrupt(step))
    assert trained(tmp_path) == whole


def test_resumed_run_without_saved_means_ends_with_other_rows(trained, interrupt, whole, tmp_path, monkeypatch):
    with pytest.raises(TrainingInterruptedError):
        trained(tmp_path, interrupt(3))
    monkeypatch.setattr(CheckpointedMetrics, "on_train_batch_end", lambda *args: None)
    assert trained(tmp_path) != whole


@pytest.mark.parametrize("epoch", [1, 2])
def test_kill_between_checkpoint_and_row_of_an_epoch_keeps_one_row(epoch, trained, whole, tmp_path, monkeypatch):
    replace, saved = os.replace, []

    def kill_after_the_checkpoint(source, target):
        replace(source, target)
        saved.extend([target] if str(target).endswith("last.ckpt") else [])
        if len(saved) == epoch:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill_after_the_checkpoint)
        with pytest.raises(Killed):
            trained(tmp_path)
    assert trained(tmp_path) == whole


def test_checkpointed_metrics_are_plain_data(trained, interrupt, tmp_path):
    with pytest.raises(TrainingInterruptedError):
        trained(tmp_path, interrupt(3))
    carried = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["metrics"]
    assert {mean["name"] for mean in carried["means"][0].values()} == {"train_error", "seldom"}
    assert list(carried["rows"]) == [0, 1, 2]
