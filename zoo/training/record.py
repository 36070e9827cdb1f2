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

from zoo.training.extension import configs_before_extension
from zoo.training.parts import check_fields
from zoo.training.writing import as_json, write_text

NUMBER = (int, float)
NONE = type(None)
NEEDED: Mapping[str, tuple[type, ...]] = {
    "state": (str,),
    "config_hash": (str,),
    "wall_seconds": NUMBER,
    "metrics": (dict,),
}
OTHERS: Mapping[str, tuple[type, ...]] = {
    "exit_reason": (str, NONE),
    "command": (str,),
    "seed": (int, NONE),
    "data": (str, NONE),
    "recipe_hash": (str,),
    "started": (str,),
    "git_commit": (str, NONE),
    "versions": (dict,),
    "hardware": (dict,),
    "host": (str, NONE),
    "process": (int, NONE),
}
STATES = ("running", "finished", "interrupted", "failed")
PACKAGES = (
    "reinforce-zoo",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "pyro-ppl",
    "gymnasium",
)
OPTIONAL = ("env", "env_kwargs", "program", "init_from")  # parts of a configuration that count only if they are set


def config_hash(config: Mapping[str, Any]) -> str:
    """Fingerprint of all that decides a run's result: the same hash, the same run.

    Where a run is logged, from where it is resumed and whether its program is trusted does not count, nor do an
    environment, its options, a program or a checkpoint to begin from if there are none.

    Example:
        >>> config_hash({"seed": 1, "logger": "csv"}) == config_hash({"logger": "wandb", "seed": 1})
        True
    """
    deciding = {key: value for key, value in config.items() if key not in ("logger", "resume", "trust")}
    deciding = {key: value for key, value in deciding.items() if key not in OPTIONAL or value not in (None, {})}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:12]


class RunRecord:
    """``status.json``: what a run is, how it stands, and what it reached.

    Written at each change, all or nothing. Wall time adds up over resumes. Whoever writes it holds the ``folder_lock``.

    Args:
        folder: the run's folder.
        config: the resolved configuration, plain data.
        command: what a user types to repeat the run.
        data: what the run is called after in tables; ``mnist-5k`` is not ``mnist``.

    Raises:
        ValueError: the folder holds a run of another configuration, or a damaged record.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], command: str, data: str | None = None):
        self.path = folder / "status.json"
        earlier = read_status(self.path) if self.path.exists() else {}
        accepted = [config_hash(config), *map(config_hash, configs_before_extension(config))]
        if earlier and earlier["config_hash"] not in accepted:
            raise ValueError(
                f"{folder} holds a run of another configuration; choose another folder, or continue that run with "
                f"resume={folder} and nothing else; if its config.yaml was edited, undo that"
            )
        self.spent = float(earlier.get("wall_seconds", 0.0))
        self.start = time.monotonic()
        self.status: dict[str, Any] = {
            "state": "running",
            "exit_reason": None,
            "command": earlier.get("command", command),
            "seed": config.get("seed"),
            "data": data,
            "config_hash": config_hash(config),
            "recipe_hash": config_hash({**config, "seed": None}),
            "started": earlier.get("started", datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")),
            "wall_seconds": self.spent,
            **run_environment(),
            "host": platform.node(),
            "process": os.getpid(),
            "metrics": dict(earlier.get("metrics", {})),
        }

    def begin(self) -> "RunRecord":
        """Note that the run is under way."""
        self._write()
        return self

    def finish(self, state: str, reason: str, metrics: Mapping[str, float | str] | None = None) -> None:
        """Note how the run ended: ``finished``, ``interrupted`` or ``failed``, and what it reached."""
        self.status |= {"state": state, "exit_reason": reason, "host": None, "process": None}
        self.status["metrics"] |= dict(metrics or {})
        self._write()

    def _write(self) -> None:
        self.status["wall_seconds"] = round(self.spent + time.monotonic() - self.start, 1)
        write_text(self.path, as_json(self.status))


def read_status(path: Path) -> dict[str, Any]:
    """Read a run record.

    Raises:
        ValueError: the file is damaged, or no run record.
    """
    cure = "delete it and run again"
    try:
        status: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise ValueError(f"{path} is damaged ({error}); {cure}") from error
    if not isinstance(status, dict) or not {"state", "config_hash"} <= status.keys():
        raise ValueError(f"{path} is no run record; {cure}")
    check_fields(status, NEEDED, f"{path} is damaged", cure)
    check_fields(status, OTHERS, f"{path} is damaged", cure, optional=True)
    if status["state"] not in STATES or not 0 <= status["wall_seconds"] < math.inf:
        found = f"state {status['state']!r} after {status['wall_seconds']} s"
        raise ValueError(f"{path} is damaged ({found}); {cure}")
    check_fields(status["metrics"], dict.fromkeys(status["metrics"], (*NUMBER, str)), f"{path} is damaged", cure)
    return status


def git_commit() -> str | None:
    """Commit of the checkout this code runs from, with ``+changes`` if files were modified; None outside of one.

    An environment inside some other repository is none: only a repository that tracks this file is.

    Changes of ``docs`` do not count: that is where records of earlier runs are put.
    """
    here = Path(__file__).parent
    try:
        tracked = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, check=True)
        commit = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "-C", str(here), "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)docs"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changes else "")


def run_environment() -> dict[str, Any]:
    """Note what can change a result beside its configuration: the commit, versions and the machine."""
    return {"git_commit": git_commit(), "versions": versions(), "hardware": hardware()}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def hardware() -> dict[str, Any]:
    """Describe the machine."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
    }
