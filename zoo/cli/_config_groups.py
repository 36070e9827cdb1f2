"""Choices of the configuration groups in ``configs/``; without slow imports."""

import difflib
import functools
import re
from collections.abc import Iterable
from pathlib import Path

import zoo


@functools.cache
def configs_dir() -> Path:
    """Return the folder of configurations: ``zoo/configs`` of an installed wheel, ``configs`` of a checkout."""
    package = Path(zoo.__file__).parent
    places = [package / "configs", package.parent / "configs"]
    for place in places:
        if (place / "train.yaml").is_file():
            return place
    raise FileNotFoundError(
        f"the configuration files are missing: there is no train.yaml in {' or '.join(map(str, places))}. Reinstall "
        "reinforce-zoo from a wheel that was built with the folder configs"
    )


def groups() -> set[str]:
    """Return the names of the configuration groups, such as ``model``."""
    return {path.name for path in configs_dir().iterdir() if path.is_dir()}


def group_choices(group: str) -> list[str]:
    """Return the names of a group's choices."""
    return sorted(path.stem for path in (configs_dir() / group).glob("*.yaml"))


def summary(group: str, name: str) -> str:
    """Return the summary of a choice: the first comment of its file that is not a directive for Hydra."""
    lines = (configs_dir() / group / f"{name}.yaml").read_text().splitlines()
    return next(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)


def model_of(experiment: str) -> str:
    """Return the model of an experiment."""
    found = re.search(r"override /model: (\w+)", (configs_dir() / "experiment" / f"{experiment}.yaml").read_text())
    return found[1] if found else ""


def check_choice(group: str, name: object) -> None:
    """Check that a choice exists in a group; ``experiment=null`` chooses none."""
    known = group_choices(group)
    if name in known or (group == "experiment" and name is None):
        return
    if group == "estimator" and (baseline := _baseline_value(str(name))) is not None:
        raise ValueError(f"{name} is a baseline: set estimator.baseline={baseline}")
    shown = "null" if name is None else name
    near = suggest_nearest(str(name).lower(), known)
    raise ValueError(f"there is no {group} {shown!r}; there are: {', '.join(known)}.{near}")


def _baseline_value(name: str) -> str | None:
    """Return the value of ``estimator.baseline`` for the name of a baseline."""
    from zoo.gradients import BASELINES  # takes long

    return {name: name for name in (*BASELINES, "optimal")}.get(name, "NUMBER" if name == "constant" else None)


def suggest_nearest(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean NAME?`` for the most similar known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.3)
    return f" Did you mean {near[0]}?" if near else ""
