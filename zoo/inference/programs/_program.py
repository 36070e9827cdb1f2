import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from zoo.data._paths import expand_user
from zoo.data._posteriordb import ReferenceMoments, read_data, read_reference


class Program(NamedTuple):
    """A Pyro model with a mean-field guide, data, and reference values of the posterior.

    ``model(*data)`` and ``guide(*data)(*data)`` run with the same data, which ``load`` returns.

    Example:
        >>> from zoo.inference.programs import PROGRAMS
        >>> (flips,) = PROGRAMS["beta_bernoulli"].load(None)
        >>> len(flips)
        10
    """

    description: str
    """One line: the inferred quantities, and the source."""
    model: Callable[..., object]
    guide: Callable[..., nn.Module]
    """Returns the guide for data; its factors use the score function unless ``pathwise`` is set."""
    load: Callable[[Path | None], tuple[Any, ...]]
    """Returns the data, read from a folder (``$ZOO_DATA``) unless they are part of the program."""
    quantities: Callable[[Mapping[str, Tensor]], Float[Tensor, "draws quantities"]] | None = None
    """Quantities of ``reference``, in its order, from samples of the sites, ``(num_samples, *shape)``."""
    reference: Callable[[Path | None], ReferenceMoments] | None = None
    """Moments of the posterior."""
    optimum: Callable[..., Mapping[str, Distribution]] | None = None
    """Returns the optimum of the guide's family for data, by site, if it has a closed form."""


def data_root() -> Path | None:
    """Return the folder of the programs' data, ``$ZOO_DATA``."""
    root = os.environ.get("ZOO_DATA")
    return Path(root) if root else None


def posteriordb_program(
    posterior: str,
    parts: Mapping[str, int],
    description: str,
    model: Callable[..., object],
    guide: Callable[..., nn.Module],
    quantities: Callable[[Mapping[str, Tensor]], Float[Tensor, "draws quantities"]],
    optimum: Callable[..., Mapping[str, Distribution]] | None = None,
) -> Program:
    """Return the program of a posterior of posteriordb, whose data have parts with these numbers of dimensions."""
    return Program(
        description,
        model,
        guide,
        lambda root: read_data(posterior_folder(root, posterior), parts),
        quantities,
        lambda root: read_reference(posterior_folder(root, posterior)),
        optimum,
    )


def stack_sites(*names: str) -> Callable[[Mapping[str, Tensor]], Float[Tensor, "draws quantities"]]:
    """Return a function that returns all elements of these sites as quantities."""
    return lambda sites: torch.cat([sites[name].reshape(len(sites[name]), -1) for name in names], 1)


def posterior_folder(root: Path | None, name: str) -> Path:
    """Return the folder of a posterior of posteriordb; raise ``FileNotFoundError`` without a data folder."""
    if root is None:
        raise FileNotFoundError(f"the data of {name} are looked for in $ZOO_DATA/posteriordb, but ZOO_DATA is not set")
    return expand_user(root) / "posteriordb" / name
