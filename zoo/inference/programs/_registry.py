import difflib

from zoo.inference.programs._beta_bernoulli import BETA_BERNOULLI
from zoo.inference.programs._eight_schools import EIGHT_SCHOOLS
from zoo.inference.programs._from_file import FILE_SYNTAX, load_program, parse_program_file
from zoo.inference.programs._gaussian_mixture import GAUSSIAN_MIXTURE, MIXTURE_WITH_ASSIGNMENTS
from zoo.inference.programs._hmm import HMM
from zoo.inference.programs._logistic_regression import LOGISTIC_REGRESSION
from zoo.inference.programs._program import Program
from zoo.inference.programs._regression import KIDIQ, SBLRC, SBLRI

PROGRAMS: dict[str, Program] = {
    "beta_bernoulli": BETA_BERNOULLI,
    "eight_schools": EIGHT_SCHOOLS,
    "gaussian_mixture": GAUSSIAN_MIXTURE,
    "gaussian_mixture_assignments": MIXTURE_WITH_ASSIGNMENTS,
    "hmm_example": HMM,
    "kidiq": KIDIQ,
    "logistic_regression": LOGISTIC_REGRESSION,
    "sblrc": SBLRC,
    "sblri": SBLRI,
}
"""Built-in programs by name."""


def find_program(name: str, trust: bool = False) -> Program:
    """Return a built-in program by name, or load one from a user's file, ``FILE.py:MODEL:GUIDE``.

    Raises:
        ValueError: the program is unknown, or the file is not trusted or fails.
        FileNotFoundError: the file does not exist.

    Example:
        >>> find_program("beta_bernoulli").description
        "a coin's fairness; Pyro's tutorial SVI part III"
    """
    if name in PROGRAMS:
        return PROGRAMS[name]
    if parse_program_file(name) is not None:
        return load_program(name, trust)
    near = difflib.get_close_matches(name, PROGRAMS, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"unknown program {name!r}; choose one of {', '.join(PROGRAMS)}, or {FILE_SYNTAX}.{hint}")
