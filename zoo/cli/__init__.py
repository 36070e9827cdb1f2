"""The command line, and what scripts with ``key=value`` arguments share with it."""

from zoo.cli._arguments import arguments_help, parse_arguments, path_field, wants_help
from zoo.cli._errors import user_errors
from zoo.cli._main import main

__all__ = ["arguments_help", "main", "parse_arguments", "path_field", "user_errors", "wants_help"]
