"""Train a model of the zoo: ``python scripts/train.py model=ram``; without arguments, list the models."""

import os
import sys

from zoo.cli.command_line import read_command_line
from zoo.cli.errors import errors_as_sentences, help_text, options_help


def main() -> None:
    """Check the command line, and train what it asks for."""
    typed = sys.argv[1:]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here, where they become sentences
    with errors_as_sentences():
        request = read_command_line(typed)
        if not typed or (request.help and not request.settings):
            print(help_text())
        elif request.help:
            print(options_help(next(request.choices())))
        else:
            from zoo.cli.launch import launch  # after the check, for it takes long

            launch(request, typed)


if __name__ == "__main__":
    main()
