"""Black-box variational inference for Pyro programs, its diagnostics, and sigmoid belief networks.

Names are imported on first use, so that ``BlackBoxELBO`` needs nothing but torch and Pyro.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.inference.bbvi import ProgramInference as ProgramInference
    from zoo.inference.callbacks import StopOnConvergence as StopOnConvergence
    from zoo.inference.diagnostics import StoppingRule as StoppingRule
    from zoo.inference.diagnostics import elbo_estimate as elbo_estimate
    from zoo.inference.diagnostics import pareto_k as pareto_k
    from zoo.inference.diagnostics import sample_posterior as sample_posterior
    from zoo.inference.diagnostics import variance_report as variance_report
    from zoo.inference.elbo import BlackBoxELBO as BlackBoxELBO
    from zoo.inference.elbo import NonReparameterized as NonReparameterized
    from zoo.inference.experiment import ProgramExperiment as ProgramExperiment
    from zoo.inference.parameter_store import ParameterStore as ParameterStore
    from zoo.inference.sbn import SigmoidBeliefNetwork as SigmoidBeliefNetwork
    from zoo.inference.variational import RepeatedBatch as RepeatedBatch
    from zoo.inference.variational import VariationalInference as VariationalInference

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

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
