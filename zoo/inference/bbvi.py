import difflib
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.gradients import MovingAverage, RunningScale
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.programs import PROGRAMS
from zoo.inference.programs.from_file import FORM, failures_explained, place_of, program_from_file
from zoo.inference.programs.program import Program
from zoo.inference.variational import VariationalInference

DECAY = 0.9


class ProgramInference(VariationalInference):
    """Black-box variational inference for a program by its name, or in a user's file.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014. The gradients are in ``BlackBoxELBO``.

    Args:
        program: one of ``zoo.inference.programs.PROGRAMS``, with data from below ``$ZOO_DATA`` where it needs any; or
            ``FILE.py:MODEL:GUIDE``, whose functions take no arguments.
        trust: whether the code of such a file may be run.
        estimator: ``baseline``, ``decay`` and ``scale``. Beside the names of ``zoo.gradients.BASELINES``, ``optimal``
            (the paper's control variate) and ``vimco`` (the importance-weighted bound instead of the ELBO). The network
            of a learned one is given at the site.
        num_particles: samples of the guide a step.
        vectorize_particles: draw them in one run; None for programs of the zoo alone.
        optimizer: ``adam``, or the paper's ``adagrad``.
        lr: learning rate at the start.
        baseline_lr: that of learned baselines; None for the same.
        schedule: ``constant``, or ``cosine`` to fall to 0.

    Raises:
        ValueError: an option has no such value, there is no such program, or it cannot be run.
        FileNotFoundError: the program or its data are missing.

    Example:
        >>> module = ProgramInference("beta_bernoulli")
        >>> flips = find_program("beta_bernoulli").load(None)
        >>> module.draw(flips, draws=10).sites["fairness"].shape
        torch.Size([10])
    """

    def __init__(
        self,
        program: str,
        trust: bool = False,
        estimator: Mapping[str, Any] | None = None,
        num_particles: int = 10,
        vectorize_particles: bool | None = None,
        optimizer: str = "adam",
        lr: float = 0.05,
        baseline_lr: float | None = None,
        schedule: str = "cosine",
    ):
        found = find_program(program, trust)
        at_once = program in PROGRAMS if vectorize_particles is None else vectorize_particles
        if program in PROGRAMS and "learned" in str((estimator or {}).get("baseline")):
            raise ValueError(
                "a learned baseline asks the guide for its network, in infer={'baseline': {...}} at a site, and those "
                f"of {program} have none; choose another estimator, or write a program of your own"
            )
        elbo = make_elbo(num_particles, at_once, **(estimator or {}))
        data = found.load(data_root())
        self.program = found
        with explained(program):
            super().__init__(found.model, found.guide(*data), elbo, data, optimizer, lr, baseline_lr, schedule)
        self.save_hyperparameters()
        self.hparams["trust"] = False  # whoever loads a checkpoint is asked again

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> "ProgramInference":
        """Load a trained guide from a checkpoint, in evaluation mode; its program and data are loaded again.

        Args:
            path: checkpoint file.
            overrides: ``trust=True`` where the program is a user's file, whose code is run.

        Raises:
            FileNotFoundError: there is no such file, or the program or its data are missing.
            ValueError: the file is damaged, of another model or version, or of a program that is not trusted.
        """
        with warnings.catch_warnings():  # of what a gradient costs that is not asked for
            warnings.filterwarnings("ignore", message=".* stands outside every plate")
            return super().load(path, **overrides)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Estimate the negative ELBO, with its gradient."""
        with explained(self.hparams["program"]):
            return super().training_step(batch, batch_idx)


def find_program(name: str, trust: bool = False) -> Program:
    """Look a program up by its name, or run a user's file.

    Raises:
        ValueError: there is no such program, or the file is not trusted or fails.
        FileNotFoundError: there is no such file.

    Example:
        >>> find_program("beta_bernoulli").description
        "a coin's fairness; Pyro's tutorial SVI part III"
    """
    if name in PROGRAMS:
        return PROGRAMS[name]
    if place_of(name) is not None:
        return program_from_file(name, trust)
    near = difflib.get_close_matches(name, PROGRAMS, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no program {name!r}; there are: {', '.join(PROGRAMS)}; or give {FORM}.{hint}")


def data_root() -> Path | None:
    """Folder that programs look for their data in."""
    root = os.environ.get("ZOO_DATA")
    return Path(root) if root else None


def make_elbo(
    num_particles: int, at_once: bool, baseline: str | None = None, decay: float = DECAY, scale: bool = False
) -> BlackBoxELBO:
    """Make the estimator that a configuration asks for.

    Raises:
        ValueError: there is none of that name, or the number of particles or the decay does not go with it.

    Example:
        >>> make_elbo(4, at_once=True, baseline="leave_one_out").num_particles
        4
    """
    running = RunningScale(decay) if scale else None
    if baseline == "vimco":
        return BlackBoxELBO(num_particles, at_once, scale=running, bound="iwae")
    if baseline == "moving_average":
        return BlackBoxELBO(num_particles, at_once, MovingAverage(decay), running)
    if baseline == "learned_moving_average" and decay != DECAY:
        raise ValueError(
            f"here the moving average of a learned baseline has a decay of {DECAY}: set estimator.decay={DECAY}"
        )
    return BlackBoxELBO(num_particles, at_once, baseline, running)


@contextmanager
def explained(program: str) -> Iterator[None]:
    """Say where in a user's file an error comes from; spare others a warning of what the zoo's programs are made to be.

    That is scored without plates, which costs more particles, as the warning says.
    """
    place = place_of(program)
    if place is not None:
        with failures_explained(place.path):
            yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* stands outside every plate")
        yield
