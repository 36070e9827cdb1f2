"""Black-box variational inference for Pyro programs, its diagnostics, and sigmoid belief networks.

Names are imported on first use, so that ``BlackBoxELBO`` needs nothing but torch and Pyro.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.inference.bbvi import ProgramInference
    from zoo.inference.callbacks import StopOnConvergence
    from zoo.inference.diagnostics import StoppingRule, elbo_estimate, pareto_k, sample_posterior, variance_report
    from zoo.inference.elbo import BlackBoxELBO, NonReparameterized
    from zoo.inference.experiment import ProgramExperiment
    from zoo.inference.parameter_store import ParameterStore
    from zoo.inference.sbn import SigmoidBeliefNetwork
    from zoo.inference.variational import RepeatedBatch, VariationalInference

_MODULES = {
    "BlackBoxELBO": "elbo",
    "NonReparameterized": "elbo",
    "ParameterStore": "parameter_store",
    "ProgramExperiment": "experiment",
    "ProgramInference": "bbvi",
    "RepeatedBatch": "variational",
    "SigmoidBeliefNetwork": "sbn",
    "StopOnConvergence": "callbacks",
    "StoppingRule": "diagnostics",
    "VariationalInference": "variational",
    "elbo_estimate": "diagnostics",
    "pareto_k": "diagnostics",
    "sample_posterior": "diagnostics",
    "variance_report": "diagnostics",
}

__all__ = [
    "BlackBoxELBO",
    "NonReparameterized",
    "ParameterStore",
    "ProgramExperiment",
    "ProgramInference",
    "RepeatedBatch",
    "SigmoidBeliefNetwork",
    "StopOnConvergence",
    "StoppingRule",
    "VariationalInference",
    "elbo_estimate",
    "pareto_k",
    "sample_posterior",
    "variance_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
