from io import StringIO
from unittest.mock import Mock

import pytest
import pytorch_lightning as pl
from rich.console import Console

from zoo.training import NonFiniteError, TrainingProgress
from zoo.training.progress import format_metric


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("validation_error", 0.0123, "1.23 %"),
        ("error", 1.0, "100.00 %"),
        ("loss", 0.5, "0.5"),
        ("error_bound", 0.123456, "0.1235"),
    ],
)
def test_errors_are_shown_in_per_cent_and_nothing_else_is(name, value, text):
    assert format_metric(name, value) == text


def test_where_the_output_is_no_terminal_there_is_a_line_for_each_epoch_and_nothing_else(train, tmp_path, capsys):
    train(tmp_path)
    assert capsys.readouterr().out == "epoch 1/2  validation error 50.00 %\nepoch 2/2  validation error 25.00 %\n"


def test_where_batches_do_not_tell_how_many_epochs_there_will_be_none_is_promised(train, tmp_path, capsys):
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

    def test_a_bar_shows_how_much_of_the_whole_run_is_done_and_the_time_left(self, progress, terminal, noisy):
        module = noisy()
        progress.on_train_start(self.trainer(step=0), module)
        progress.on_train_batch_end(self.trainer(step=6), module, None, None, 5)
        progress.on_train_epoch_end(self.trainer(), module)
        progress.on_train_end(self.trainer(), module)
        shown = terminal.getvalue()
        assert "75%" in shown
        assert "left" in shown
        assert "epoch 1/2  validation error 50.00 %" in shown

    def test_what_else_tells_how_much_is_done_is_believed(self, progress, terminal, noisy):
        progress.fraction_done = lambda: 0.35
        progress.on_train_start(self.trainer(step=0), noisy())
        progress.on_train_batch_end(self.trainer(step=6), noisy(), None, None, 5)
        progress.on_train_end(self.trainer(), noisy())
        assert "35%" in terminal.getvalue()
        assert "75%" not in terminal.getvalue()

    def test_a_resumed_run_s_bar_goes_on_where_it_stood(self, progress, terminal, noisy):
        progress.on_train_start(self.trainer(step=4), noisy())
        progress.on_train_end(self.trainer(), noisy())
        assert "50%" in terminal.getvalue()

    @pytest.mark.parametrize("end", ["on_train_end", "on_exception"])
    def test_the_cursor_comes_back_however_the_run_ends(self, end, progress, terminal, noisy):
        module = noisy()
        progress.on_train_start(self.trainer(), module)
        hidden, back = "\x1b[?25l", "\x1b[?25h"
        assert hidden in terminal.getvalue()
        assert back not in terminal.getvalue()
        getattr(progress, end)(self.trainer(), module, *([ValueError()] if end == "on_exception" else []))
        assert back in terminal.getvalue()

    def test_only_the_first_of_several_processes_shows_it(self, progress, terminal, noisy):
        trainer, module = self.trainer(), noisy()
        trainer.is_global_zero = False
        progress.on_train_start(trainer, module)
        progress.on_train_batch_end(trainer, module, None, None, 0)
        progress.on_train_epoch_end(trainer, module)
        progress.on_train_end(trainer, module)
        assert terminal.getvalue() == ""


def test_a_run_that_fails_ends_the_bar(train, at, tmp_path, monkeypatch):
    stopped = []
    monkeypatch.setattr(TrainingProgress, "_stop", lambda self: stopped.append(self.progress is not None))
    with pytest.raises(NonFiniteError):
        train(tmp_path, at(2, lambda module: module.net.weight.data.fill_(float("nan"))))
    assert stopped == [True]
