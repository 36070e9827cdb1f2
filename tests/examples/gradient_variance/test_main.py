import pytest

from zoo.training import TrainingInterruptedError

PROGRAM = "examples/gradient_variance/__main__.py"


def test_help_describes_each_argument(script):
    answer = script(PROGRAM, "--help")
    assert answer.code == 0
    assert all(name in answer.out for name in ("seed", "num_samples", "episodes", "gamma", "record"))


def test_unknown_argument_is_one_sentence(script):
    answer = script(PROGRAM, "recrod=a.json")
    assert answer.code == 1
    assert "did you mean record=...?" in answer.err


@pytest.mark.parametrize("error", [KeyboardInterrupt, TrainingInterruptedError])
def test_ctrl_c_leaves_no_traceback(error, script, monkeypatch):
    def interrupted(*args, **options):
        raise error

    monkeypatch.setattr("zoo.training.fit", interrupted)
    assert script(PROGRAM).code == 130
