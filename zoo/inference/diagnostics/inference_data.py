import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
from torch import Tensor

from zoo.inference.diagnostics.posterior_samples import PosteriorSamples, elbo_estimate
from zoo.inference.diagnostics.psis import fit_pareto_k, k_hat_unavailable_reason


def to_inference_data(samples: PosteriorSamples, method: str = "black-box variational inference") -> Any:
    """Convert samples of a guide to ArviZ, as one chain.

    Groups are ``posterior`` (samples of the guide), ``sample_stats`` (``lp``: ``log p(x, z)``, ``lq``: ``log q(z)``),
    ``observed_data``, and ``log_likelihood`` if it was kept. The posterior's attributes are ``method``, ``elbo``,
    ``elbo_se`` and ``khat``; NaN if k-hat is unavailable.

    Returns:
        ``arviz.InferenceData`` with ArviZ 0, ``xarray.DataTree`` from ArviZ 1 on.

    Raises:
        ImportError: ArviZ is not installed.
        FloatingPointError: the weight of a sample is not finite.

    Example:
        >>> import warnings
        >>> import torch
        >>> zeros = torch.zeros(2)
        >>> with warnings.catch_warnings(action="ignore"):  # ArviZ announces its next version
        ...     data = to_inference_data(PosteriorSamples({"z": zeros}, zeros.double(), zeros.double(), {}, {}, False))
        >>> data.posterior.attrs["method"]
        'black-box variational inference'
    """
    try:
        arviz = import_module("arviz")
    except ModuleNotFoundError as error:
        raise ImportError("to_inference_data needs ArviZ, which is not installed: pip install -e '.[arviz]'") from error
    groups = {
        "posterior": _as_chain(samples.sites),
        "sample_stats": _as_chain({"lp": samples.log_p, "lq": samples.log_q}),
        "log_likelihood": _as_chain(samples.log_likelihood),
        "observed_data": {name: x.detach().cpu().numpy() for name, x in samples.observed.items()},
    }
    groups = {name: group for name, group in groups.items() if group}
    elbo = elbo_estimate(samples)
    k_hat = math.nan if k_hat_unavailable_reason(samples) else fit_pareto_k(samples.log_weights).value
    attributes = {"method": method, "elbo": elbo.value, "elbo_se": elbo.standard_error, "khat": k_hat}
    # ArviZ 1 still has names of ArviZ 0, such as InferenceData, for its error messages, so hasattr cannot be used.
    if int(arviz.__version__.partition(".")[0]) < 1:
        return arviz.from_dict(**groups, attrs=attributes, posterior_attrs=attributes)
    return arviz.from_dict(groups, attrs={"/": attributes, "posterior": attributes})


def _as_chain(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: x.detach().cpu().numpy()[None] for name, x in values.items()}
