from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from zoo.inference.diagnostics.elbo_estimate import elbo_estimate
from zoo.inference.diagnostics.posterior_samples import Draws
from zoo.inference.diagnostics.psis import no_k_hat, tail_index

METHOD = "black-box variational inference"

Groups = dict[str, dict[str, np.ndarray]]


def to_inference_data(draws: Draws, method: str = METHOD) -> Any:
    """Hand draws of a guide to ArviZ, as one chain.

    Groups are ``posterior`` (draws of the guide), ``sample_stats`` (``lp`` is ``log p(x, z)``, ``lq`` is ``log q(z)``),
    ``observed_data``, and ``log_likelihood`` if the draws have it. The posterior's attributes are ``method``, ``elbo``,
    ``elbo_se`` and ``khat``; NaN for k-hat where there is none.

    Args:
        draws: at least 2; see ``draw``.
        method: what the guide was found by.

    Returns:
        ``arviz.InferenceData`` up to ArviZ 0, ``xarray.DataTree`` from ArviZ 1 on.

    Raises:
        ImportError: ArviZ is not installed.
        FloatingPointError: the weight of a draw is not finite.
    """
    arviz, groups, attributes = import_arviz(), groups_of(draws), attributes_of(draws, method)
    if _major_version(arviz) < 1:
        return arviz.from_dict(**groups, attrs=attributes, posterior_attrs=attributes)
    return arviz.from_dict(groups, attrs={"/": attributes, "posterior": attributes})


def import_arviz() -> ModuleType:
    """Import ArviZ.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return import_module("arviz")
    except ModuleNotFoundError as error:
        raise ImportError("to_inference_data needs ArviZ, which is not installed: pip install -e '.[arviz]'") from error


def _major_version(package: ModuleType) -> int:
    """First number of a package's version.

    ArviZ 1 still answers to names of ArviZ 0, such as ``InferenceData``, to say what took their place: what it has does
    not tell which it is.
    """
    return int(package.__version__.partition(".")[0])


def groups_of(draws: Draws) -> Groups:
    """Arrange draws by ArviZ's groups: one chain first, then the draws; data as they are.

    Example:
        >>> import torch
        >>> log_p = torch.zeros(5, dtype=torch.float64)
        >>> groups = groups_of(Draws({"z": torch.zeros(5, 3)}, log_p, log_p, {"x": torch.zeros(7)}, {}, False))
        >>> groups["posterior"]["z"].shape, groups["sample_stats"]["lp"].shape, groups["observed_data"]["x"].shape
        ((1, 5, 3), (1, 5), (7,))
    """
    groups = {
        "posterior": chained(draws.sites),
        "sample_stats": chained({"lp": draws.log_p, "lq": draws.log_q}),
        "log_likelihood": chained(draws.log_likelihood),
        "observed_data": {name: x.detach().cpu().numpy() for name, x in draws.observed.items()},
    }
    return {name: group for name, group in groups.items() if group}


def chained(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Make one chain of draws."""
    return {name: x.detach().cpu().numpy()[None] for name, x in values.items()}


def attributes_of(draws: Draws, method: str) -> dict[str, str | float]:
    """Give what is known of the guide as a whole.

    Example:
        >>> import torch
        >>> log_p = torch.zeros(100, dtype=torch.float64)
        >>> attributes_of(Draws({}, log_p, log_p, {}, {}, False), "NUTS")
        {'method': 'NUTS', 'elbo': 0.0, 'elbo_se': 0.0, 'khat': 0.0}
    """
    found = elbo_estimate(draws)
    k = float("nan") if no_k_hat(draws) else tail_index(draws.log_weights).value
    return {"method": method, "elbo": found.value, "elbo_se": found.standard_error, "khat": k}
