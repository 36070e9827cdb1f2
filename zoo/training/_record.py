import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from zoo.training._extension import configs_before_extension
from zoo.training._files import check_fields, write_text

_NUMBER = (int, float)
_NONE = type(None)
_REQUIRED = {"state": (str,), "config_hash": (str,), "wall_seconds": _NUMBER, "metrics": (dict,)}
_OPTIONAL = {
    **dict.fromkeys(("command", "recipe_hash", "started"), (str,)),
    **dict.fromkeys(("exit_reason", "data", "git_commit", "host"), (str, _NONE)),
    **dict.fromkeys(("seed", "process"), (int, _NONE)),
    **dict.fromkeys(("versions", "hardware"), (dict,)),
}
_STATES = ("running", "finished", "interrupted", "failed")
_PACKAGES = ("reinforce-zoo", "torch", "torchvision", "pytorch-lightning", "hydra-core", "pyro-ppl", "gymnasium")
_HASHED_IF_SET = ("env", "env_kwargs", "program", "init_from")


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a hash of everything in a configuration that determines the result of a run.

    It ignores ``logger`` and ``resume``, and entries of ``env``, ``env_kwargs``, ``program`` and
    ``init_from`` that are not set.

    Example:
        >>> config_hash({"seed": 1, "logger": "csv"}) == config_hash({"logger": "wandb", "seed": 1})
        True
    """
    hashed = {key: value for key, value in config.items() if key not in ("logger", "resume")}
    hashed = {key: value for key, value in hashed.items() if key not in _HASHED_IF_SET or value not in (None, {})}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:12]


def _recipe_hash(config: Mapping[str, Any]) -> str:
    """Return a hash that is the same for all seeds of a configuration.

    A run that starts from the weights of another one is identified by the recipe of that run.
    """
    recipe = {**config, "seed": None}
    if start := config.get("init_from"):
        record = Path(start).parents[1] / "status.json"
        recipe["init_from"] = read_status(record).get("recipe_hash", start) if record.exists() else start
    return config_hash(recipe)


class RunRecord:
    """``status.json`` of a run: configuration hash, state, environment and final metrics.

    The file is written atomically at each change, by the process that holds the ``folder_lock``. Wall time is summed
    over resumed runs. Raises ``ValueError`` if the folder holds a run with another configuration, or a damaged record.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], command: str, data: str | None = None):
        self.path = folder / "status.json"
        previous = read_status(self.path) if self.path.exists() else {}
        accepted = [config_hash(config), *map(config_hash, configs_before_extension(config))]
        if previous and previous["config_hash"] not in accepted:
            raise ValueError(
                f"{folder} holds a run of another configuration; choose another folder, or continue that run with "
                f"resume={folder} and nothing else; if its config.yaml was edited, undo that"
            )
        self.previous_seconds = float(previous.get("wall_seconds", 0.0))
        self.start = time.monotonic()
        self.status: dict[str, Any] = {
            "state": "running",
            "exit_reason": None,
            "command": previous.get("command", command),
            "seed": config.get("seed"),
            "data": data,
            "config_hash": config_hash(config),
            "recipe_hash": _recipe_hash(config),
            "started": previous.get("started", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")),
            "wall_seconds": self.previous_seconds,
            **run_environment(),
            "host": platform.node(),
            "process": os.getpid(),
            "metrics": dict(previous.get("metrics", {})),
        }

    def begin(self) -> "RunRecord":
        """Record that the run is running."""
        self._write()
        return self

    def finish(self, state: str, reason: str, metrics: Mapping[str, float | str] | None = None) -> None:
        """Record the final state, ``finished``, ``interrupted`` or ``failed``, and the metrics."""
        self.status |= {"state": state, "exit_reason": reason, "host": None, "process": None}
        self.status["metrics"] |= dict(metrics or {})
        self._write()

    def _write(self) -> None:
        self.status["wall_seconds"] = round(self.previous_seconds + time.monotonic() - self.start, 1)
        write_text(self.path, json.dumps(self.status, indent=2) + "\n")


def read_status(path: Path) -> dict[str, Any]:
    """Read a run record.

    Raises:
        ValueError: the file is damaged or not a run record.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = RunRecord(Path(folder), {"seed": 1}, "zoo train model=ram").begin()
        ...     read_status(Path(folder) / "status.json")["state"]
        'running'
    """
    remedy = "delete it and run again"
    try:
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise ValueError(f"{path} is damaged ({error}); {remedy}") from error
    if not isinstance(status, dict) or not {"state", "config_hash"} <= status.keys():
        raise ValueError(f"{path} is not a run record; {remedy}")
    check_fields(status, _REQUIRED, f"{path} is damaged", remedy)
    check_fields(status, _OPTIONAL, f"{path} is damaged", remedy, optional=True)
    if status["state"] not in _STATES or not 0 <= status["wall_seconds"] < math.inf:
        found = f"state {status['state']!r} after {status['wall_seconds']} s"
        raise ValueError(f"{path} is damaged ({found}); {remedy}")
    check_fields(status["metrics"], dict.fromkeys(status["metrics"], (*_NUMBER, str)), f"{path} is damaged", remedy)
    return status


def git_commit() -> str | None:
    """Return the commit of the checkout of this code, with ``+changes`` if files outside ``docs`` were modified.

    None for an installed package, even if it lies in another repository, which does not track this file.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        commit = git("rev-parse", "HEAD")
        changes = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def run_environment() -> dict[str, Any]:
    """Return what can change a result besides the configuration: commit, versions and hardware.

    Example:
        >>> sorted(run_environment())
        ['git_commit', 'hardware', 'versions']
    """
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    hardware = {"machine": platform.machine(), "cpus": os.cpu_count(), "threads": torch.get_num_threads(), "gpus": gpus}
    python = {"python": platform.python_version()}
    return {"git_commit": git_commit(), "versions": python | versions, "hardware": hardware}
