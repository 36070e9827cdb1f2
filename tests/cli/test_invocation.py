import sys

import pytest

from zoo.cli._invocation import command_name, subprocess_command


@pytest.mark.parametrize(
    ("entry", "command", "arguments"),
    [
        ("/venv/bin/zoo", "zoo train", ["-m", "zoo", "train"]),
        ("/venv/lib/zoo/__main__.py", "python -m zoo train", ["-m", "zoo", "train"]),
        ("/home/user/zoo/scripts/evaluate.py", "python scripts/train.py", ["/home/user/zoo/scripts/train.py"]),
        ("scripts/reproduce.py", "python scripts/train.py", ["scripts/train.py"]),
    ],
)
def test_command_has_the_form_in_which_the_running_one_was_typed(entry, command, arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [entry])
    assert command_name("train") == command
    assert subprocess_command("train") == [sys.executable, *arguments]
