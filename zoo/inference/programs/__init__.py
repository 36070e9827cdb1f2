"""Built-in programs: Pyro models with mean-field guides, data, and reference moments of their posteriors."""

from zoo.inference.programs._beta_bernoulli import BETA_BERNOULLI
from zoo.inference.programs._eight_schools import EIGHT_SCHOOLS
from zoo.inference.programs._gaussian_mixture import GAUSSIAN_MIXTURE, MIXTURE_WITH_ASSIGNMENTS
from zoo.inference.programs._hmm import HMM
from zoo.inference.programs._kidiq import KIDIQ
from zoo.inference.programs._logistic_regression import LOGISTIC_REGRESSION
from zoo.inference.programs._program import Program
from zoo.inference.programs._regression import SBLRC, SBLRI
from zoo.inference.programs.factors import (
    BernoulliFactor,
    BetaFactor,
    BetaMeanFactor,
    Factor,
    GammaFactor,
    LogNormalFactor,
    NormalFactor,
)

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

__all__ = [
    "PROGRAMS",
    "BernoulliFactor",
    "BetaFactor",
    "BetaMeanFactor",
    "Factor",
    "GammaFactor",
    "LogNormalFactor",
    "NormalFactor",
    "Program",
]
