import csv
import os
from pathlib import Path

import pytest
import torch

from zoo.training import TrainingInterruptedError, read_metrics
from zoo.training._metrics import CheckpointedMetrics, CSVMetricsLogger


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path):
    """A file of five steps."""
    path = tmp_path / "metrics.csv"
    log = CSVMetricsLogger(path)
    for step in range(5):
        log.log_metrics({"loss": step / 2}, step)
    return path


def test_steps_are_rows_and_metrics_are_columns(tmp_path):
    log = CSVMetricsLogger(tmp_path / "metrics.csv")
    log.log_metrics({"loss": 2.0}, 0)
    log.log_metrics({"loss": 1.0}, 1)
    log.log_metrics({"error": 0.5, "loss": 0.25}, 1)
    log.log_metrics({"reward": 3.0}, 4)
    assert rows(log.path) == [
        {"step": "0", "loss": "2.0", "error": "", "reward": ""},
        {"step": "1", "loss": "0.25", "error": "0.5", "reward": ""},
        {"step": "4", "loss": "", "error": "", "reward": "3.0"},
    ]


def test_resumed_run_has_the_rows_of_its_checkpoint_whatever_the_file_holds(path):
    path.write_text("not even a table")
    log = CSVMetricsLogger(path, {step: {"step": step, "loss": step / 2} for step in range(3)})
    assert [row["step"] for row in rows(path)] == ["0", "1", "2"]
    log.log_metrics({"error": 0.25}, 3)
    assert [row["step"] for row in rows(path)] == ["0", "1", "2", "3"]
    assert [row["loss"] for row in rows(path)] == ["0.0", "0.5", "1.0", ""]
    assert [row["error"] for row in rows(path)] == ["", "", "", "0.25"]


def test_rows_of_a_checkpoint_include_what_is_logged_next(path):
    log = CSVMetricsLogger(path, {0: {"step": 0, "loss": 1.0}})
    before = path.read_text()
    assert log.rows_with({"error": 0.5}, 0) == {0: {"step": 0, "loss": 1.0, "error": 0.5}}
    assert log.rows_with({"error": 0.5}, 1) == {0: {"step": 0, "loss": 1.0}, 1: {"step": 1, "error": 0.5}}
    assert path.read_text() == before


def test_new_run_in_a_folder_discards_all_rows(path):
    CSVMetricsLogger(path).log_metrics({"loss": 7.0}, 0)
    assert [row["loss"] for row in rows(path)] == ["7.0"]


def test_kill_during_a_write_leaves_the_previous_file(path, monkeypatch):
    before, write = path.read_bytes(), Path.write_text

    def half(self, text, **options):
        write(self, text[: len(text) // 2], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        CSVMetricsLogger(path).log_metrics({"loss": 1.0}, 5)
    assert path.read_bytes() == before


class TestReadMetrics:
    def test_columns_are_restricted_to_rows_with_a_value_in_the_last(self, tmp_path):
        log = CSVMetricsLogger(tmp_path / "metrics.csv")
        for step, figures in enumerate([{"loss": 1.0}, {"loss": 0.5, "error": 0.25}]):
            log.log_metrics(figures, step)
        assert read_metrics(log.path, "step", "loss", "error") == [[1.0], [0.5], [0.25]]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("step,loss\n0,x\n", "could not convert string to float: 'x'"),
            ("step,loss\n,1.0\n", "could not convert string to float: ''"),
            ("step,loss\n0,1.0\n1\n", "line 3 does not have as many fields as the first"),
            ("step,loss\n0,1.0,2.0\n", "line 2 does not have as many fields as the first"),
            ("step\n0\n", "it has no column loss"),
            ("", "it has no column step"),
            ('step,loss\n"0,1.0\n', "unexpected end of data"),
        ],
    )
    def test_damaged_metrics_file_is_an_error_with_the_remedy(self, content, said, tmp_path):
        (tmp_path / "metrics.csv").write_text(content)
        with pytest.raises(ValueError, match=rf"metrics\.csv is damaged \({said}\); resume=.* rewrites it"):
            read_metrics(tmp_path / "metrics.csv", "step", "loss")

    @pytest.mark.parametrize("content", [b"\xff\xfe", b"step,loss\n0,1\0\n"])
    def test_binary_metrics_file_is_an_error_with_the_remedy(self, content, tmp_path):
        (tmp_path / "metrics.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
            read_metrics(tmp_path / "metrics.csv", "step", "loss")


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
