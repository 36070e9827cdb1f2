from io import StringIO
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
from rich.console import Console

from zoo.training import NonFiniteError
from zoo.training._progress import TrainingProgress, format_metric


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("validation_error", 0.0123, "1.23 %"),
        ("error", 1.0, "100.00 %"),
        ("loss", 0.5, "0.5"),
        ("error_bound", 0.123456, "0.1235"),
        ("env_steps", 12170.0, "12,170"),
        ("elbo", -1234.5678, "-1,235"),
    ],
)
def test_only_errors_are_shown_in_percent_and_thousands_without_an_exponent(name, value, text):
    assert format_metric(name, value) == text


def test_only_a_line_per_epoch_is_printed_without_a_terminal(train, tmp_path, capsys):
    train(tmp_path)
    assert capsys.readouterr().out == "epoch 1/2  validation error 50.00 %\nepoch 2/2  validation error 25.00 %\n"


def test_number_of_epochs_is_not_shown_if_it_is_unknown(train, tmp_path, capsys):
    train(tmp_path, fraction_done=lambda: 0.5)
    assert capsys.readouterr().out == "epoch 1  validation error 50.00 %\nepoch 2  validation error 25.00 %\n"


class TestOnATerminal:
    @pytest.fixture
    def terminal(self):
        return StringIO()

    @pytest.fixture
    def progress(self, terminal):
        progress = TrainingProgress()
        progress.console = Console(file=terminal, force_terminal=True, color_system=None, width=120)
        return progress

    def trainer(self, step=3):
        figures = {"progress_bar_metrics": {"validation_error": 0.5}, "current_epoch": 0, "max_epochs": 2}
        return Mock(
            spec=pl.Trainer,
            is_global_zero=True,
            estimated_stepping_batches=8,
            fit_loop=Mock(total_batch_idx=step - 1),
            **figures,
        )

    def test_bar_shows_fraction_of_the_whole_run_and_remaining_time(self, progress, terminal, noisy):
        module = noisy()
        progress.on_train_start(self.trainer(step=0), module)
        progress.on_train_batch_end(self.trainer(step=6), module, None, None, 5)
        progress.on_train_epoch_end(self.trainer(), module)
        progress.on_train_end(self.trainer(), module)
        shown = terminal.getvalue()
        assert "75%" in shown
        assert "left" in shown
        assert "epoch 1/2  validation error 50.00 %" in shown

    def test_given_fraction_done_is_shown(self, progress, terminal, noisy):
        progress.fraction_done = lambda: 0.35
        progress.on_train_start(self.trainer(step=0), noisy())
        progress.on_train_batch_end(self.trainer(step=6), noisy(), None, None, 5)
        progress.on_train_end(self.trainer(), noisy())
        assert "35%" in terminal.getvalue()
        assert "75%" not in terminal.getvalue()

    def test_bar_of_a_resumed_run_starts_where_it_stopped(self, progress, terminal, noisy):
        progress.on_train_start(self.trainer(step=4), noisy())
        progress.on_train_end(self.trainer(), noisy())
        assert "50%" in terminal.getvalue()

    @pytest.mark.parametrize("end", ["on_train_end", "on_exception"])
    def test_cursor_is_restored_however_the_run_ends(self, end, progress, terminal, noisy):
        module = noisy()
        progress.on_train_start(self.trainer(), module)
        hidden, back = "\x1b[?25l", "\x1b[?25h"
        assert hidden in terminal.getvalue()
        assert back not in terminal.getvalue()
        getattr(progress, end)(self.trainer(), module, *([ValueError()] if end == "on_exception" else []))
        assert back in terminal.getvalue()

    def test_bar_is_shown_by_rank_zero_only(self, progress, terminal, noisy):
        trainer, module = self.trainer(), noisy()
        trainer.is_global_zero = False
        progress.on_train_start(trainer, module)
        progress.on_train_batch_end(trainer, module, None, None, 0)
        progress.on_train_epoch_end(trainer, module)
        progress.on_train_end(trainer, module)
        assert terminal.getvalue() == ""


def test_failing_run_removes_the_bar(train, at, tmp_path, monkeypatch):
    stopped = []
    monkeypatch.setattr(TrainingProgress, "_stop", lambda self: stopped.append(self.progress is not None))
    with pytest.raises(NonFiniteError):
        train(tmp_path, at(2, lambda module: module.net.weight.data.fill_(float("nan"))))
    assert stopped == [True]
