from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from zoo.data.paths import expand_user
from zoo.data.posteriordb import ReferenceMoments


class Program(NamedTuple):
    """A Pyro model with a mean-field guide, data, and what is known of the posterior.

    ``model(*data)`` and ``guide(*data)(*data)`` are run with the same data, which ``load`` gives.
    """

    description: str
    """One line: what is inferred, and where it comes from."""
    model: Callable[..., object]
    guide: Callable[..., nn.Module]
    """Makes the guide for data: its factors are scored, unless they are told to be ``pathwise``."""
    load: Callable[[Path | None], tuple[Any, ...]]
    """Data, read from below a folder (``$ZOO_DATA``) where they are not part of the program.

    Raises FileNotFoundError or ValueError.
    """
    quantities: Callable[[Mapping[str, Tensor]], Float[Tensor, "draws quantities"]] | None = None
    """What ``reference`` speaks of, in its order, of draws of the sites: each ``(draws, *shape)``."""
    reference: Callable[[Path | None], ReferenceMoments] | None = None
    """Moments of the posterior."""
    optimum: Callable[..., Mapping[str, Distribution]] | None = None
    """Of data: the guide's family at its optimum, by site, where that can be had without a fit."""


def posterior_folder(root: Path | None, name: str) -> Path:
    """Folder of a posterior of posteriordb.

    Raises:
        FileNotFoundError: no folder of data is known.
    """
    if root is None:
        raise FileNotFoundError(f"the data of {name} are looked for in $ZOO_DATA/posteriordb, but ZOO_DATA is not set")
    return expand_user(root) / "posteriordb" / name
