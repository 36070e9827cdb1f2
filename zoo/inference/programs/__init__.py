"""Built-in programs: Pyro models with mean-field guides, data, and reference moments of their posteriors."""

from zoo.inference.programs.beta_bernoulli import BETA_BERNOULLI
from zoo.inference.programs.eight_schools import EIGHT_SCHOOLS
from zoo.inference.programs.factors import (
    BernoulliFactor,
    BetaFactor,
    BetaMeanFactor,
    Factor,
    GammaFactor,
    LogNormalFactor,
    NormalFactor,
)
from zoo.inference.programs.gaussian_mixture import GAUSSIAN_MIXTURE, MIXTURE_WITH_ASSIGNMENTS
from zoo.inference.programs.hmm import HMM
from zoo.inference.programs.kidiq import KIDIQ
from zoo.inference.programs.logistic_regression import LOGISTIC_REGRESSION
from zoo.inference.programs.program import Program
from zoo.inference.programs.regression import SBLRC, SBLRI

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
