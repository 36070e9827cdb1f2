import json

import pytest

from zoo.cli import _reproduce as reproduction
from zoo.cli._arguments import ReproduceConfig
from zoo.cli._errors import RunFailedError
from zoo.cli._reproduce import run_once


class TestRunOnce:
    @pytest.fixture
    def script(self, monkeypatch):
        """Stands in for ``zoo train``: notes its arguments, then does what it is told."""

        def make(code=0, then=lambda: None):
            calls = []

            def run(arguments):
                calls.append(arguments)
                then()
                return code

            monkeypatch.setattr(reproduction, "train_in_subprocess", run)
            return calls

        return make

    def test_finished_run_is_not_repeated(self, leave_run, script, tmp_path):
        folder, calls = leave_run("a"), script()
        assert run_once(["seed=1"], "wanted", tmp_path / "runs") == folder
        assert calls == []

    def test_configuration_without_a_run_is_run(self, leave_run, script, tmp_path, capsys):
        calls = script(then=lambda: leave_run("new"))
        assert run_once(["experiment=six", "seed=1"], "wanted", tmp_path / "runs").name == "new"
        assert calls == [["experiment=six", "seed=1"]]
        assert "$ zoo train experiment=six seed=1" in capsys.readouterr().out

    def test_stopped_run_is_resumed(self, leave_run, script, tmp_path, make_record):
        folder = leave_run("a", state="interrupted")
        calls = script(then=lambda: (folder / "status.json").write_text(json.dumps(make_record())))
        assert run_once(["seed=1"], "wanted", tmp_path / "runs") == folder
        assert calls == [[f"resume={folder}"]]

    @pytest.mark.parametrize("code", [1, -9])
    def test_run_that_does_not_finish_is_an_error(self, code, leave_run, script, tmp_path):
        script(code, then=lambda: leave_run("a", state="failed"))
        with pytest.raises(RunFailedError, match="did not finish; the same command resumes it"):
            run_once(["seed=1"], "wanted", tmp_path / "runs")

    def test_interrupted_run_ends_the_command_with_130_and_a_sentence(self, script, tmp_path, capsys):
        script(130)
        with pytest.raises(SystemExit) as end:
            run_once(["seed=1"], "wanted", tmp_path / "runs")
        assert end.value.code == 130
        assert capsys.readouterr().err.strip() == "The run above was interrupted; the same command resumes it."

    def test_run_of_another_configuration_is_an_error(self, leave_run, script, tmp_path):
        script(then=lambda: leave_run("a", config_hash="mnist-5k instead of mnist", data="mnist-5k"))
        with pytest.raises(RunFailedError, match="left no finished record of configuration wanted"):
            run_once(["seed=1"], "wanted", tmp_path / "runs")

    @pytest.mark.parametrize("code", [130, 0])
    def test_ctrl_c_waits_until_the_run_has_saved(self, code, monkeypatch):
        waits = iter([KeyboardInterrupt(), code])

        class Process:
            def __init__(self, command): ...

            def __enter__(self):
                return self

            def __exit__(self, *error): ...

            def wait(self):
                answer = next(waits)
                if isinstance(answer, KeyboardInterrupt):
                    raise answer
                return answer

        monkeypatch.setattr(reproduction.subprocess, "Popen", Process)
        assert reproduction.train_in_subprocess([]) == 130


def test_records_are_published_only_into_a_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr("zoo.reproduction._tables.CHECKOUT_RECORDS", tmp_path / "docs" / "results")
    with pytest.raises(ValueError, match=r"publish=true writes into a checkout, .*: remove publish"):
        reproduction.reproduce(ReproduceConfig(paper="tabular", publish=True))
