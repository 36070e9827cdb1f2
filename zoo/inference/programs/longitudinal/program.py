from functools import partial
from pathlib import Path

from zoo.data.labs import Labs, load_pbc
from zoo.inference.programs.longitudinal.family import FactorFamily
from zoo.inference.programs.longitudinal.guide import Guide
from zoo.inference.programs.longitudinal.model import model
from zoo.inference.programs.longitudinal.simulation import simulate
from zoo.inference.programs.program import Program

SIMULATED_PATIENTS, SIMULATED_LABS = 200, 7


def program_of(family: FactorFamily) -> Program:
    """Program of a factor model: the labs of the PBC patients to learn from, simulated ones if no folder is given.

    The model and the guide take a second argument: how many patients to draw in a step.

    Example:
        >>> gamma_normal = program_of(FactorFamily(series=False, positive=False))
        >>> (labs,) = gamma_normal.load(None)
        >>> gamma_normal.guide(labs)(labs, 25)
    """
    return Program(
        f"factors of patients' labs, {family.name}; Ranganath, Gerrish & Blei 2014",
        partial(model, family),
        partial(Guide, family),
        partial(load, family),
    )


def load(family: FactorFamily, root: Path | None) -> tuple[Labs]:
    """Labs of the training patients of the PBC study; with no folder, 200 patients drawn from the model itself."""
    if root is None:
        return (simulate(family, SIMULATED_PATIENTS, SIMULATED_LABS, seed=0)[0],)
    return (load_pbc(root).train,)
