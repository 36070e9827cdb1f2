import subprocess
import sys
import time

import pytest

import zoo
from zoo.cli import main
from zoo.cli._config_groups import configs_dir, group_choices


@pytest.fixture
def failing(capsys):
    """Run a command that exits with 1, and return its message."""

    def run(*argv):
        with pytest.raises(SystemExit) as end:
            main(argv)
        assert end.value.code == 1
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_commands_are_listed_with_their_meaning(argv, capsys):
    main(argv)
    lines = capsys.readouterr().out.splitlines()
    for command in ("train", "evaluate", "reproduce", "list"):
        (line,) = [line for line in lines if line.startswith(f"  {command} ")]
        assert len(line) > 20


def test_models_are_listed_with_their_summaries(capsys):
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"model={name}" for name in group_choices("model")]
    assert all(len(line.split(maxsplit=1)[1]) > 20 for line in lines)


def test_version_is_printed(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"{zoo.__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "there is no command 'trian'; there are: train, evaluate, reproduce, list. Did you mean train?"),
        (["model=ram"], "there is no command 'model=ram'; write zoo train model=ram"),
        (["list", "models"], "zoo list has no arguments, got models"),
        (["train", "--nope"], "--nope"),
        (["evaluate"], "checkpoint must be given"),
    ],
)
def test_mistake_is_answered_in_one_sentence(argv, message, failing):
    printed = failing(*argv)
    assert message in printed
    assert printed.strip().count("\n") == 0


@pytest.mark.parametrize("command", ["train", "evaluate", "reproduce"])
def test_help_names_the_command_as_it_was_typed(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/venv/bin/zoo", command, "--help"])
    main()
    assert f"zoo {command} " in capsys.readouterr().out


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["list"]])
def test_help_is_printed_without_imports_of_torch_or_lightning(argv):
    program = (
        f"import sys; from zoo.cli import main; main({argv!r}); "
        "assert not {'torch', 'pytorch_lightning', 'pyro', 'gymnasium'} & sys.modules.keys()"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert time.monotonic() - start < 10  # well below 1 s; the machine may be busy


def test_missing_configuration_files_are_reported_with_where_they_belong(monkeypatch, tmp_path, failing):
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "zoo" / "__init__.py"))
    configs_dir.cache_clear()
    message = failing("list")
    configs_dir.cache_clear()
    assert "the configuration files are missing: there is no train.yaml in" in message
    assert f"{tmp_path}/zoo/configs or {tmp_path}/configs. Reinstall reinforce-zoo" in message
