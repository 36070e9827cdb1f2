import csv
from pathlib import Path

import pytest

from zoo.training import Interrupted, MetricsCsv


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path):
    """A file of five steps."""
    path = tmp_path / "metrics.csv"
    log = MetricsCsv(path)
    for step in range(5):
        log.log_metrics({"loss": step / 2}, step)
    return path


def test_each_step_has_a_row_and_each_metric_a_column(tmp_path):
    log = MetricsCsv(tmp_path / "metrics.csv")
    log.log_metrics({"loss": 2.0}, 0)
    log.log_metrics({"loss": 1.0}, 1)
    log.log_metrics({"error": 0.5, "loss": 0.25}, 1)
    log.log_metrics({"reward": 3.0}, 4)
    assert rows(log.path) == [
        {"step": "0", "loss": "2.0", "error": "", "reward": ""},
        {"step": "1", "loss": "0.25", "error": "0.5", "reward": ""},
        {"step": "4", "loss": "", "error": "", "reward": "3.0"},
    ]


def test_a_resumed_run_forgets_the_rows_after_its_checkpoint_and_appends(path):
    log = MetricsCsv(path, resumed_step=3)
    log.log_metrics({"error": 0.25}, 3)
    assert [row["step"] for row in rows(path)] == ["0", "1", "2", "3"]
    assert [row["loss"] for row in rows(path)] == ["0.0", "0.5", "1.0", ""]
    assert [row["error"] for row in rows(path)] == ["", "", "", "0.25"]


def test_a_run_that_begins_anew_in_a_folder_forgets_all_rows(path):
    MetricsCsv(path).log_metrics({"loss": 7.0}, 0)
    assert [row["loss"] for row in rows(path)] == ["7.0"]


def test_killed_while_it_writes_it_leaves_the_file_before(path, monkeypatch):
    before, write = path.read_bytes(), Path.write_text

    def half(self, text):
        write(self, text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        MetricsCsv(path, resumed_step=5).log_metrics({"loss": 1.0}, 5)
    assert path.read_bytes() == before


def test_the_rows_of_an_interrupted_run_are_those_of_a_whole_one(train, interrupt, tmp_path):
    train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", interrupt(5))
    train(tmp_path / "parts")
    whole, parts = (rows(tmp_path / name / "metrics.csv") for name in ("whole", "parts"))
    assert [row["step"] for row in whole] == [row["step"] for row in parts] == ["3", "7"]
    assert whole[0] == parts[0]
    assert whole[1]["validation_error"] == parts[1]["validation_error"]
