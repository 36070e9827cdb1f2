"""What the scripts say to people: help, errors as sentences."""

import difflib
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from zoo.composition import CONFIGS, options
from zoo.control import EnvironmentFailure
from zoo.data import MnistUnavailable
from zoo.training import NonFiniteError

# A library's own use of a name that torch has deprecated; nothing here can change it.
warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")

USER_ERRORS = (ValueError, OSError, NonFiniteError, MnistUnavailable, EnvironmentFailure, MisconfigurationException)


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Print an error the user can cure as its sentence, without a traceback, and exit with 1.

    Run Python with ``-X dev`` to see where it came from.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        yield
    except USER_ERRORS as error:
        if sys.flags.dev_mode:
            raise
        print(f"\nError: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def not_left_empty(folder: Path) -> Iterator[None]:
    """Take a folder away again if an error leaves it empty."""
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it holds something, or another process was faster
            folder.rmdir()
        raise


def relative(path: Path) -> Path:
    """Shorten a path below the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def check_choices(arguments: Sequence[str]) -> None:
    """Look for what Hydra would not explain: misspelt options of a group, a run that cannot be resumed so.

    Raises:
        ValueError: an option is unknown, and the known ones and the nearest spelling are named; or a run is to be
            resumed with other settings.
        FileNotFoundError: there is no such run.
    """
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    for argument in arguments:
        group, _, chosen = argument.lstrip("+").partition("=")
        if group == "resume" and not Path(chosen, "config.yaml").is_file():
            raise FileNotFoundError(f"{chosen} holds no run to resume: there is no config.yaml in it")
        if group == "resume" and not all(other.startswith(("resume=", "hydra.", "-")) for other in arguments):
            raise ValueError("a run is resumed as it was configured; give resume=RUN and nothing else")
        if group not in groups:
            continue
        known = options(group)
        for name in chosen.split(","):
            if name not in [*known, "null"]:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"there is no {group} {name!r}; there are: {', '.join(known)}.{hint}")


def listing(group: str, prefix: str) -> str:
    """List the choices of a group, a line each, with what they are for in a column."""
    names = options(group)
    width = max(map(len, names))
    return "\n".join(f"  {prefix}{name:<{width}}  {summary(group, name)}" for name in names)


def help_text() -> str:
    """List the models, and what can be set, for ``--help`` and for a command without arguments."""
    models, experiments = listing("model", "model="), listing("experiment", "")
    return f"""Train a model of the zoo: python scripts/train.py model=NAME [key=value ...]

Models
{models}

Experiments (experiment=NAME, complete by themselves)
{experiments}

Often changed
  data={"|".join(options("data"))}    data.root=DIR for idx and image_folder
  env=Acrobot-v1  any environment of Gymnasium, for the models that act in one
  estimator={"|".join(options("estimator"))}
  logger={"|".join(options("logger"))}
  model.lr=0.001  trainer.max_epochs=20  seed=2  -m seed=1,2,3 (one run each)
  resume=RUN      continue a stopped run, exactly where it was saved

All options of a model: python scripts/train.py model=NAME --cfg job
"""


def summary(group: str, name: str) -> str:
    """Give the first comment of a configuration file that is not for Hydra: what it is, in one line."""
    lines = (CONFIGS / group / f"{name}.yaml").read_text().splitlines()
    return next(line[2:] for line in lines if line.startswith("# ") and "@package" not in line)
