import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.errors import ConfigCompositionException
from omegaconf.errors import InterpolationKeyError

from zoo.cli._errors import RunFailedError, relative, remove_if_empty, user_errors
from zoo.data import DatasetUnavailableError
from zoo.training import NonFiniteError


class TestUserErrors:
    @pytest.mark.parametrize(
        "error",
        [
            ValueError("the cure"),
            FileNotFoundError("the cure"),
            RunFailedError("the cure"),
            NonFiniteError("the cure"),
            DatasetUnavailableError("the cure"),
        ],
    )
    def test_user_error_is_one_sentence_and_exit_code_1(self, error, capsys):
        with pytest.raises(SystemExit) as end, user_errors():
            raise error
        assert end.value.code == 1
        assert capsys.readouterr() == ("", "\nError: the cure\n")

    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            (PermissionError(13, "Permission denied", "/runs"), "Permission denied: /runs"),
            (ConfigCompositionException("the cause\nadvice for Hydra's users"), "the cause"),
            (InterpolationKeyError("key 'nope' not found\n    full_key: seed"), "key 'nope' not found"),
            (MemoryError(), "a size is too large for the memory of this machine: MemoryError"),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory\nstack"), "a size is too large for the memory"),
        ],
    )
    def test_user_errors_of_libraries_are_one_line(self, error, sentence, capsys):
        with pytest.raises(SystemExit) as end, user_errors():
            raise error
        assert end.value.code == 1
        printed = capsys.readouterr().err
        assert printed.startswith(f"\nError: {sentence}")
        assert printed.strip().count("\n") == 0

    def test_internal_error_keeps_its_traceback(self):
        with pytest.raises(KeyError), user_errors():
            raise KeyError

    def test_every_error_keeps_its_traceback_in_dev_mode(self, monkeypatch):
        monkeypatch.setattr(sys, "flags", SimpleNamespace(dev_mode=True))
        with pytest.raises(ValueError, match="the cure"), user_errors():
            raise ValueError("the cure")

    def test_ctrl_c_exits_with_130_and_a_sentence(self, capsys):
        with pytest.raises(SystemExit) as end, user_errors():
            raise KeyboardInterrupt
        assert end.value.code == 130
        assert capsys.readouterr() == ("", "\nInterrupted.\n")

    @pytest.mark.parametrize("flush", [False, True])
    def test_closed_pipe_exits_with_141_and_prints_nothing(self, flush, monkeypatch, capsys):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as pipe:
            monkeypatch.setattr(sys, "stdout", pipe)
            with pytest.raises(SystemExit) as end, user_errors():
                print("a line", flush=flush)
            monkeypatch.undo()
        assert end.value.code == 141
        assert capsys.readouterr().err == ""

    def test_nothing_is_printed_without_an_error(self, capsys):
        with user_errors():
            pass
        assert capsys.readouterr() == ("", "")


class TestRemoveIfEmpty:
    @pytest.mark.parametrize(("content", "left"), [([], False), (["last.ckpt"], True)])
    def test_folder_with_content_is_kept_after_an_error(self, tmp_path, content, left):
        folder = tmp_path / "run"
        folder.mkdir()
        for name in content:
            (folder / name).touch()
        with pytest.raises(ValueError, match="the cure"), remove_if_empty(folder):
            raise ValueError("the cure")
        assert folder.exists() == left

    def test_folder_is_kept_without_an_error(self, tmp_path):
        with remove_if_empty(tmp_path):
            pass
        assert tmp_path.exists()


def test_paths_below_the_current_folder_are_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "runs" / "a") == Path("runs", "a")
    assert relative(Path("/elsewhere/a")) == Path("/elsewhere/a")


def test_warnings_are_printed(monkeypatch, capsys):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with user_errors():
        logging.getLogger("zoo.anything").warning("mind the step")
    assert capsys.readouterr().err == "mind the step\n"
