import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from zoo.command_line import check_choices, errors_as_sentences, help_text, not_left_empty, relative, summary
from zoo.composition import options
from zoo.config import MODELS
from zoo.data import MnistUnavailable
from zoo.training import NonFiniteError


class TestErrorsAsSentences:
    @pytest.mark.parametrize(
        "error",
        [
            ValueError("the cure"),
            FileNotFoundError("the cure"),
            ChildProcessError("the cure"),
            NonFiniteError("the cure"),
            MnistUnavailable("the cure"),
        ],
    )
    def test_an_error_that_the_user_can_cure_is_one_sentence_and_exit_code_1(self, error, capsys):
        with pytest.raises(SystemExit) as end, errors_as_sentences():
            raise error
        assert end.value.code == 1
        assert capsys.readouterr() == ("", "\nError: the cure\n")

    def test_a_fault_of_the_program_keeps_its_traceback(self):
        with pytest.raises(KeyError), errors_as_sentences():
            raise KeyError

    def test_so_does_every_error_for_a_developer(self, monkeypatch):
        monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=True))
        with pytest.raises(ValueError, match="the cure"), errors_as_sentences():
            raise ValueError("the cure")

    def test_ctrl_c_ends_with_its_own_code(self):
        with pytest.raises(SystemExit) as end, errors_as_sentences():
            raise KeyboardInterrupt
        assert end.value.code == 130

    def test_without_an_error_nothing_is_said(self, capsys):
        with errors_as_sentences():
            pass
        assert capsys.readouterr() == ("", "")


class TestNotLeftEmpty:
    @pytest.mark.parametrize(("content", "left"), [([], False), (["last.ckpt"], True)])
    def test_a_folder_stays_after_an_error_if_it_holds_something(self, tmp_path, content, left):
        folder = tmp_path / "run"
        folder.mkdir()
        for name in content:
            (folder / name).touch()
        with pytest.raises(ValueError, match="the cure"), not_left_empty(folder):
            raise ValueError("the cure")
        assert folder.exists() == left

    def test_a_folder_stays_without_an_error(self, tmp_path):
        with not_left_empty(tmp_path):
            pass
        assert tmp_path.exists()


def test_paths_below_the_current_folder_are_shortened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "runs" / "a") == Path("runs", "a")
    assert relative(Path("/elsewhere/a")) == Path("/elsewhere/a")


class TestCheckChoices:
    @pytest.mark.parametrize(
        ("argument", "complaint"),
        [
            ("model=rma", r"there is no model 'rma'; there are: .*ram.*\. Did you mean ram\?"),
            ("experiment=ram_mnist_28_66", r"there is no experiment .* Did you mean ram_mnist_28_6"),
            ("data=minst", r"there is no data 'minst'; there are: .*mnist.* Did you mean mnist\?"),
            ("model=ram,rma", "there is no model 'rma'"),
            ("+logger=csw", "there is no logger 'csw'"),
        ],
    )
    def test_an_unknown_choice_is_named_beside_the_known_ones_and_the_nearest(self, argument, complaint):
        with pytest.raises(ValueError, match=complaint):
            check_choices(["seed=1", argument])

    def test_where_nothing_is_near_nothing_is_suggested(self):
        with pytest.raises(ValueError, match=r"there is no model 'xyz'; there are: [^?]*\.$"):
            check_choices(["model=xyz"])

    @pytest.mark.parametrize(
        "arguments", [["model=ram", "seed=1"], ["-m", "model=ram", "model.lr=1"], ["experiment=null"], ["modell=x"], []]
    )
    def test_all_else_is_left_to_hydra(self, arguments):
        assert check_choices(arguments) is None

    def test_a_folder_without_a_run_cannot_be_resumed(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"holds no run to resume: there is no config\.yaml in it"):
            check_choices([f"resume={tmp_path}"])
        (tmp_path / "config.yaml").touch()
        assert check_choices([f"resume={tmp_path}"]) is None

    def test_a_run_is_resumed_with_its_own_settings_and_no_others(self, tmp_path):
        (tmp_path / "config.yaml").touch()
        assert check_choices([f"resume={tmp_path}", "hydra.run.dir=x", "-m"]) is None
        with pytest.raises(ValueError, match="give resume=RUN and nothing else"):
            check_choices(["model.lr=1", f"resume={tmp_path}"])


class TestHelp:
    def test_lists_every_model_with_what_it_is_in_one_line(self):
        lines = help_text().splitlines()
        for name in MODELS:
            (line,) = [line for line in lines if line.startswith(f"  model={name} ")]
            assert len(line.split(maxsplit=1)[1]) > 20

    def test_lists_every_experiment_and_every_choice(self):
        text = help_text()
        assert all(f"  {name} " in text for name in options("experiment"))
        assert all(name in text for group in ("data", "estimator", "logger") for name in options(group))

    @pytest.mark.parametrize("group", ["model", "data", "estimator", "trainer", "logger", "experiment"])
    def test_every_configuration_says_what_it_is_within_a_line(self, group):
        assert options(group)
        for name in options(group):
            assert 0 < len(summary(group, name)) <= 110


def test_warnings_are_shown_to_the_user(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with errors_as_sentences():
        logging.getLogger("zoo.anything").warning("mind the step")
    assert capsys.readouterr().err == "mind the step\n"
