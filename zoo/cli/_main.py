"""The command ``zoo``; each of its commands imports what it needs when it runs."""

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


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command of the zoo, and exit with status 1 and one sentence where the user made a mistake.

    Args:
        argv: command and arguments, such as ``["train", "model=ram"]``; those of the process by default.

    Example:
        >>> main(["--version"])
        0.1.0
    """
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
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


def _train(arguments: Sequence[str]) -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are reported by user_errors, not by Hydra
    request = read_command_line(arguments)
    if not arguments or (request.help and not request.settings):
        print(help_text())
    elif request.help:
        print(options_help(next(request.choices())))
    else:
        from zoo.cli._launch import launch

        launch(request)


def _evaluate(arguments: Sequence[str]) -> None:
    if wants_help(arguments):
        usage = f"{command_name('evaluate')} checkpoint=RUN/checkpoints/last.ckpt [render=gif]"
        print(arguments_help(EvaluateConfig, f"Evaluate a checkpoint: {usage}"))
        return
    options = parse_arguments(EvaluateConfig, arguments)
    if options.render not in (None, "gif"):
        raise ValueError(f"an episode can be rendered as gif, not as {options.render}: render=gif")
    from zoo.cli._commands import evaluate

    checkpoint = Path(options.checkpoint).absolute()
    in_run = checkpoint.parent.name == "checkpoints"
    folder = checkpoint.parents[1] if in_run else checkpoint.with_suffix("")
    result = evaluate(checkpoint, folder, render=options.render is not None, trust=options.trust)
    print(result.summary)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
    print(f"results are in {relative(folder)}/: {files}")


def _reproduce(arguments: Sequence[str]) -> None:
    if wants_help(arguments):
        usage = f"{command_name('reproduce')} paper=ram [budget=smoke] [rows=[6,random]] [seeds=[1,2]]"
        print(arguments_help(ReproduceConfig, f"Reproduce a table of results: {usage}"))
        return
    options = parse_arguments(ReproduceConfig, arguments)
    from zoo.reproduction._tables import check_request

    check_request(options.paper, options.budget, options.rows, options.publish)
    from zoo.cli._reproduce import reproduce

    reproduce(options)


def _list(arguments: Sequence[str]) -> None:
    if arguments and not wants_help(arguments):
        raise ValueError(f"zoo list has no arguments, got {' '.join(arguments)}")
    print(list_choices("model", "model="))


_COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "train": (_train, "train a model, resume a run, or sweep over settings"),
    "evaluate": (_evaluate, "evaluate a checkpoint on its test set or in its environment"),
    "reproduce": (_reproduce, "run the experiments of a paper's table and write the table"),
    "list": (_list, "list the models"),
}
