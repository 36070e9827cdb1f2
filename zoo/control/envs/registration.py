"""Looking environments up in Gymnasium's registry, and importing the packages that fill it."""

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gymnasium
from gymnasium.envs.registration import EnvSpec

GAMES = {"MinAtar": "minatar.gym", "ALE": "ale_py"}  # what registers environments, by the first part of their ids


def registered(name: str) -> EnvSpec:
    """Look an environment up in Gymnasium's registry.

    Raises:
        ValueError: it is not there, and the nearest ones are named; or it is a game whose package is not installed.
    """
    register_games(name.partition("/")[0])
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:  # unknown, malformed, or of a version that is no more
        with suppress(ValueError):
            register_games("ALE")  # which registers ids without a namespace as well, such as Pong-v4
        if name in gymnasium.registry:
            return gymnasium.spec(name)
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.4)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        raise ValueError(f"Gymnasium knows no environment {name!r}{hint}") from error


def register_games(collection: str) -> None:
    """Make the games of a collection known to Gymnasium, which does not look for them by itself.

    Raises:
        ValueError: its package is not installed.
    """
    if collection not in GAMES or any(name.startswith(f"{collection}/") for name in gymnasium.registry):
        return
    try:
        package = importlib.import_module(GAMES[collection])
    except ImportError as error:
        raise ValueError(f"the games of {collection} need a package: pip install -e '.[games]' ({error})") from error
    if hasattr(package, "register_envs"):  # the other one registers its games when it is imported
        package.register_envs()


def import_environment(name: str, trust: bool) -> str:
    """Import the module of ``module:Name-v0``, which registers the environment, and return ``Name-v0``.

    Modules in the current folder are found. A name without a module is returned as it is.

    Args:
        name: as Gymnasium takes it.
        trust: whether the module's code may be run.

    Raises:
        ValueError: the module is not trusted, cannot be imported, or raises an error.

    Example:
        >>> import_environment("CartPole-v1", trust=False)
        'CartPole-v1'
    """
    module, colon, bare = name.rpartition(":")
    if not colon:
        return name
    if not trust:
        raise ValueError(f"env={name} imports {module} and so runs its code: add trust=true if you trust it")
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"env={name} must be MODULE:NAME, with a module as Python imports it; {module!r} is none")
    try:
        with current_folder_importable():
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"env={name}: {module} needs a package that is not installed: {error}") from error
        raise ValueError(f"env={name}: there is no module {module}, neither installed nor in {Path.cwd()}") from error
    except Exception as error:
        raise ValueError(f"env={name}: importing {module} raised {type(error).__name__}: {error}") from error
    return bare


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Look for modules in the current folder too, after all others."""
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
