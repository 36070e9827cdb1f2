"""The command ``zoo``; what takes long to import is imported by the command that needs it."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import zoo
from zoo.cli._arguments import EvaluateConfig, ReproduceConfig, arguments_help, parse_arguments, wants_help
from zoo.cli._command_line import read_command_line
from zoo.cli._config_groups import suggest_nearest
from zoo.cli._errors import relative, user_errors
from zoo.cli._help import help_text, list_choices, options_help
from zoo.cli._invocation import command_name


def main(typed: Sequence[str] | None = None) -> None:
    """Run a command of the zoo, and exit with status 1 and one sentence where the user made a mistake.

    Args:
        typed: command and arguments, such as ``["train", "model=ram"]``; those of the process by default.

    Example:
        >>> main(["--version"])
        0.1.0
    """
    command, *rest = (sys.argv[1:] if typed is None else typed) or ["--help"]
    with user_errors():
        if command in ("-h", "--help"):
            print(_usage())
        elif command == "--version":
            print(zoo.__version__)
        elif command in _COMMANDS:
            _COMMANDS[command][0](rest)
        elif "=" in command:
            raise ValueError(f"there is no command {command!r}; write {command_name('train')} {command}")
        else:
            near = suggest_nearest(command, _COMMANDS)
            raise ValueError(f"there is no command {command!r}; there are: {', '.join(_COMMANDS)}.{near}")


def _usage() -> str:
    lines = [f"  {name:<10} {meaning}" for name, (_, meaning) in _COMMANDS.items()]
    return "\n".join(["Usage: zoo COMMAND [key=value ...]", "", *lines, "", "zoo COMMAND --help lists its arguments."])


def _train(given: Sequence[str]) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are reported by user_errors, not by Hydra
    request = read_command_line(given)
    if not given or (request.help and not request.settings):
        print(help_text())
    elif request.help:
        print(options_help(next(request.choices())))
    else:
        from zoo.cli._launch import launch

        launch(request)


def _evaluate(given: Sequence[str]) -> None:
    if wants_help(given):
        usage = f"{command_name('evaluate')} checkpoint=RUN/checkpoints/last.ckpt [render=gif]"
        print(arguments_help(EvaluateConfig, f"Evaluate a checkpoint: {usage}"))
        return
    asked = parse_arguments(EvaluateConfig, given)
    if asked.render not in (None, "gif"):
        raise ValueError(f"an episode can be rendered as gif, not as {asked.render}: render=gif")
    from zoo.cli._commands import evaluate

    checkpoint = Path(asked.checkpoint).absolute()
    in_run = checkpoint.parent.name == "checkpoints"
    folder = checkpoint.parents[1] if in_run else checkpoint.with_suffix("")
    outcome = evaluate(checkpoint, folder, render=asked.render is not None, trust=asked.trust)
    print(outcome.summary)
    left = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
    print(f"results are in {relative(folder)}/: {left}")


def _reproduce(given: Sequence[str]) -> None:
    if wants_help(given):
        usage = f"{command_name('reproduce')} paper=ram [budget=smoke] [rows=[6,random]] [seeds=[1,2]]"
        print(arguments_help(ReproduceConfig, f"Reproduce a table of results: {usage}"))
        return
    asked = parse_arguments(ReproduceConfig, given)
    from zoo.reproduction._tables import check_request

    check_request(asked.paper, asked.budget, asked.rows, asked.publish)
    from zoo.cli._reproduce import reproduce

    reproduce(asked)


def _list(given: Sequence[str]) -> None:
    if given and not wants_help(given):
        raise ValueError(f"zoo list has no arguments, got {' '.join(given)}")
    print(list_choices("model", "model="))


_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (_train, "train a model, resume a run, or sweep over settings"),
    "evaluate": (_evaluate, "evaluate a checkpoint on its test set or in its environment"),
    "reproduce": (_reproduce, "run the experiments of a paper's table and write the table"),
    "list": (_list, "list the models"),
}
