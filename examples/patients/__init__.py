"""Factor models of longitudinal labs: the four of the paper on black-box variational inference."""

from examples.patients.chains import constrained, gibbs_blocks, initial_state, potential, unconstrained
from examples.patients.density import lab_log_density, local_log_density, log_joint
from examples.patients.family import FactorFamily, gamma_e
from examples.patients.fitting import Fitting, fit
from examples.patients.guide import Factors, Guide, factors_of
from examples.patients.model import expected_labs, model
from examples.patients.prediction import Prediction, predictive_log_likelihood
from examples.patients.program import PATIENT_PROGRAMS, program_of
from examples.patients.simulation import simulate

__all__ = [
    "PATIENT_PROGRAMS",
    "FactorFamily",
    "Factors",
    "Fitting",
    "Guide",
    "Prediction",
    "constrained",
    "expected_labs",
    "factors_of",
    "fit",
    "gamma_e",
    "gibbs_blocks",
    "initial_state",
    "lab_log_density",
    "local_log_density",
    "log_joint",
    "model",
    "potential",
    "predictive_log_likelihood",
    "program_of",
    "simulate",
    "unconstrained",
]
