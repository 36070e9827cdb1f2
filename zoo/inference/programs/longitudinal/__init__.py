"""Factor models of longitudinal labs: the four of the paper on black-box variational inference."""

from zoo.inference.programs.longitudinal.chains import blocks, constrained, potential, start_of_chain, unconstrained
from zoo.inference.programs.longitudinal.density import lab_log_density, local_log_density, log_joint
from zoo.inference.programs.longitudinal.family import FactorFamily, gamma_e
from zoo.inference.programs.longitudinal.fitting import Fitting, fit
from zoo.inference.programs.longitudinal.guide import Factors, Guide, factors_of
from zoo.inference.programs.longitudinal.model import expected_labs, model
from zoo.inference.programs.longitudinal.prediction import Prediction, predictive_log_likelihood
from zoo.inference.programs.longitudinal.program import program_of
from zoo.inference.programs.longitudinal.simulation import simulate

__all__ = [
    "FactorFamily",
    "Factors",
    "Fitting",
    "Guide",
    "Prediction",
    "blocks",
    "constrained",
    "expected_labs",
    "factors_of",
    "fit",
    "gamma_e",
    "lab_log_density",
    "local_log_density",
    "log_joint",
    "model",
    "potential",
    "predictive_log_likelihood",
    "program_of",
    "simulate",
    "start_of_chain",
    "unconstrained",
]
