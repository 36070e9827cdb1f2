"""Look-up in Gymnasium's registry, and import of the packages that register environments."""

import difflib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import gymnasium
from gymnasium.envs.registration import EnvSpec

_GAME_PACKAGES = {"MinAtar": "minatar.gym", "ALE": "ale_py"}  # by the namespace of their ids


def find_spec(env_id: str) -> EnvSpec:
    """Return the spec of a registered environment; the packages of games are imported for it.

    Raises:
        ValueError: the id is not registered (the message lists similar ids), or its package is not installed.

    Example:
        >>> find_spec("CartPole-v1").max_episode_steps
        500
    """
    register_games(env_id.partition("/")[0])
    try:
        return gymnasium.spec(env_id)
    except gymnasium.error.Error as error:  # unknown, malformed, or a version that was removed
        with suppress(ValueError):
            register_games("ALE")  # registers ids without a namespace as well, such as Pong-v4
        if env_id in gymnasium.registry:
            return gymnasium.spec(env_id)
        near = difflib.get_close_matches(env_id, gymnasium.registry, n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"no environment {env_id!r} is registered in Gymnasium{hint}") from error


def register_games(namespace: str) -> None:
    """Register the games of a namespace, ``MinAtar`` or ``ALE``; others are ignored.

    Raises:
        ValueError: the package is not installed.
    """
    if namespace not in _GAME_PACKAGES or any(name.startswith(f"{namespace}/") for name in gymnasium.registry):
        return
    try:
        package = importlib.import_module(_GAME_PACKAGES[namespace])
    except ImportError as error:
        raise ValueError(f"the games of {namespace} need a package: pip install -e '.[games]' ({error})") from error
    if hasattr(package, "register_envs"):  # the other one registers its games when it is imported
        package.register_envs()


def import_env_module(env_id: str, trust: bool) -> str:
    """Import the module of ``module:Name-v0``, which registers the environment, and return ``Name-v0``.

    Modules in the current folder are found too. An id without a module is returned unchanged.

    Args:
        env_id: id as ``gymnasium.make`` accepts it.
        trust: whether the module's code may run.

    Raises:
        ValueError: the module is not trusted, cannot be imported, or raises an error.

    Example:
        >>> import_env_module("CartPole-v1", trust=False)
        'CartPole-v1'
    """
    module, colon, name = env_id.rpartition(":")
    if not colon:
        return env_id
    if not trust:
        raise ValueError(f"env={env_id} imports {module} and so runs its code: add trust=true if you trust it")
    if not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"env={env_id} must be MODULE:NAME, and {module!r} is not the name of a Python module")
    try:
        with _current_folder_importable():
            importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"env={env_id}: {module} needs a package that is not installed: {error}") from error
        raise ValueError(f"env={env_id}: there is no module {module}, neither installed nor in {Path.cwd()}") from error
    except Exception as error:
        raise ValueError(f"env={env_id}: importing {module} raised {type(error).__name__}: {error}") from error
    return name


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
