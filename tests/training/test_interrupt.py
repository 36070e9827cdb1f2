import signal

import pytest

from zoo.training import NonFiniteError, TrainingInterruptedError, read_checkpoint

HANDLED = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers():
    """What signals do before a training; set again after the test, in case it failed."""
    before = [signal.getsignal(number) for number in HANDLED]
    yield before
    for number, handler in zip(HANDLED, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", HANDLED)
def test_signal_within_a_step_finishes_the_step_saves_and_stops(number, train, interrupt, tmp_path):
    with pytest.raises(TrainingInterruptedError, match="stopped after step 3, and saved"):
        train(tmp_path, interrupt(3, number))
    saved = read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert saved["global_step"] == 3
    assert {state["step"].item() for state in saved["optimizer_states"][0]["state"].values()} == {3}


def test_second_ctrl_c_stops_at_once_and_leaves_the_last_checkpoint(train, interrupt, tmp_path):
    with pytest.raises(
        TrainingInterruptedError, match="stopped at once, without saving what came after the last checkpoint"
    ):
        train(tmp_path, interrupt(7, signal.SIGINT, signal.SIGINT))
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_signal_in_the_last_step_of_an_epoch_stops_after_its_validation(train, interrupt, tmp_path):
    with pytest.raises(TrainingInterruptedError, match="stopped after step 4, and saved"):
        train(tmp_path, interrupt(4))
    assert "validation_error" in (tmp_path / "metrics.csv").read_text()
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 4


def test_epoch_is_finished_if_it_cannot_be_resumed_and_the_user_is_told(train, interrupt, tmp_path, capfd):
    with pytest.raises(TrainingInterruptedError, match="stopped after step 4, and saved"):
        train(tmp_path, interrupt(2), supports_mid_epoch_resume=False)
    assert read_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert capfd.readouterr().err.count("stopping at the end of this epoch, where the run is saved") == 1


def test_user_is_not_told_of_a_stop_after_the_step(train, interrupt, tmp_path, capfd):
    with pytest.raises(TrainingInterruptedError):
        train(tmp_path, interrupt(2))
    assert "end of this epoch" not in capfd.readouterr().err


def test_signal_in_the_very_last_step_completes_the_run(train, interrupt, tmp_path):
    assert train(tmp_path, interrupt(8)).is_file()


class TestSignalHandlers:
    def now(self):
        return [signal.getsignal(number) for number in HANDLED]

    def test_signal_handlers_are_restored_after_training(self, train, tmp_path, handlers):
        train(tmp_path)
        assert self.now() == handlers

    @pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]])
    def test_signal_handlers_are_restored_after_an_interruption(self, signals, train, interrupt, tmp_path, handlers):
        with pytest.raises(TrainingInterruptedError):
            train(tmp_path, interrupt(2, *signals))
        assert self.now() == handlers

    def test_signal_handlers_are_restored_after_a_failure(self, train, at, tmp_path, handlers):
        with pytest.raises(NonFiniteError):
            train(tmp_path, at(2, lambda module: module.net.weight.data.fill_(float("nan"))))
        assert self.now() == handlers

    def test_signal_handlers_are_installed_during_training(self, train, at, tmp_path, handlers):
        held = []
        train(tmp_path, at(2, lambda module: held.append(self.now())))
        assert all(during != before for during, before in zip(held[0], handlers, strict=True))
