import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.gradients import MovingAverageBaseline, RunningStd
from zoo.gradients.estimators import ESTIMATORS, complete_options
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.elbo._messages import HighVarianceWarning
from zoo.inference.programs import PROGRAMS, find_program
from zoo.inference.programs._program import data_root
from zoo.inference.programs._registry import annotate_errors, parse_program_file
from zoo.inference.variational import VariationalInference

DECAY = 0.9


class ProgramInference(VariationalInference):
    """Black-box variational inference for a built-in program, or a program in a user's file.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014. The gradients are in ``BlackBoxELBO``.

    Args:
        program: name of one of ``zoo.inference.programs.PROGRAMS``, whose data, if any, are in ``$ZOO_DATA``; or
            ``FILE.py:MODEL:GUIDE``, with functions without arguments.
        trust: allow running the code of such a file.
        estimator: ``name``, ``reinforce`` or ``vimco`` (importance-weighted bound instead of the ELBO), and
            ``baseline`` (one of ``zoo.gradients.BASELINES``, or ``optimal``, the paper's control variate), ``decay``
            and ``scale``. The network of a learned baseline is specified at the site.
        num_particles: samples of the guide per step.
        vectorize_particles: draw all particles in one run; None to do so for built-in programs only.
        optimizer: ``adam``, or the paper's ``adagrad``.
        lr: initial learning rate.
        baseline_lr: learning rate of learned baselines; None for ``lr``.
        schedule: ``constant``, or ``cosine`` decay to 0.

    Raises:
        ValueError: an option is invalid, or the program is unknown or fails.
        FileNotFoundError: the program or its data are missing.

    Example:
        >>> module = ProgramInference("beta_bernoulli")
        >>> data = PROGRAMS["beta_bernoulli"].load(None)
        >>> module.sample_posterior(data, num_samples=10).sites["fairness"].shape
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
        vectorize = program in PROGRAMS if vectorize_particles is None else vectorize_particles
        if program in PROGRAMS and "learned" in str((estimator or {}).get("baseline")):
            raise ValueError(
                "a learned baseline needs a network, specified by infer={'baseline': {...}} at a site, which the guide "
                f"of {program} does not have; choose another baseline, or write your own program"
            )
        elbo = _make_elbo(num_particles, vectorize, **complete_options(estimator, "bbvi", ["signals", "log_weights"]))
        data = found.load(data_root())
        self.program = found
        with _program_errors(program):
            super().__init__(found.model, found.guide(*data), elbo, data, optimizer, lr, baseline_lr, schedule)
        self.save_hyperparameters()
        self.hparams["trust"] = False  # must be given again to load a checkpoint

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
        with warnings.catch_warnings():  # about gradients, which are not computed here
            warnings.simplefilter("ignore", HighVarianceWarning)
            return super().load(path, **overrides)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return a differentiable estimate of the negative ELBO."""
        with _program_errors(self.hparams["program"]):
            return super().training_step(batch, batch_idx)


def _make_elbo(
    num_particles: int,
    vectorize_particles: bool,
    name: str = "reinforce",
    baseline: str | None = None,
    decay: float = DECAY,
    scale: bool = False,
) -> BlackBoxELBO:
    """Return the estimator of a configuration."""
    given = MovingAverageBaseline(decay) if baseline == "moving_average" else baseline
    if baseline == "learned_moving_average" and decay != DECAY:
        raise ValueError(
            f"the moving average of a learned baseline has a fixed decay here: set estimator.decay={DECAY}"
        )
    running = RunningStd(decay) if scale else None
    return BlackBoxELBO(num_particles, vectorize_particles, given, running, ESTIMATORS[name].bound)


@contextmanager
def _program_errors(program: str) -> Iterator[None]:
    """Add the line of a user's file to errors; ignore the warning on sites outside plates for built-in programs."""
    place = parse_program_file(program)
    if place is not None:
        with annotate_errors(place.path):
            yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HighVarianceWarning)
        yield
