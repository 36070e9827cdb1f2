from functools import partial
from pathlib import Path

from examples.patients.family import FactorFamily
from examples.patients.guide import Guide
from examples.patients.labs import Labs, load_pbc
from examples.patients.model import model
from examples.patients.simulation import simulate
from zoo.inference.programs._program import Program

SIMULATED_PATIENTS, SIMULATED_LABS = 200, 7


def program_of(family: FactorFamily) -> Program:
    """Return the program of a factor model on the training patients of the PBC study; without a folder, simulated ones.

    Model and guide accept a second argument, the number of patients to subsample.

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
    """Return the labs of the training patients of the PBC study; without a folder, of 200 simulated patients."""
    if root is None:
        return (simulate(family, SIMULATED_PATIENTS, SIMULATED_LABS, seed=0)[0],)
    return (load_pbc(root).train,)


PATIENT_PROGRAMS = {
    family.name: program_of(family)
    for family in (FactorFamily(series, positive) for positive in (False, True) for series in (False, True))
}
