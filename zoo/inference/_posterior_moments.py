from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from zoo.data._posteriordb import ReferenceMoments
from zoo.inference.diagnostics import ElboEstimate, PosteriorSamples, elbo_estimate
from zoo.training import NonFiniteError

Quantities = dict[str, Float64[Tensor, " draws"]]


def finite_estimate(samples: PosteriorSamples) -> ElboEstimate:
    """Return the ELBO; raise ``NonFiniteError`` if the weight of a sample is not finite."""
    try:
        return elbo_estimate(samples)
    except FloatingPointError as error:
        raise NonFiniteError(f"the ELBO is not finite: {error}") from error


def named_quantities(
    sites: Mapping[str, Tensor], quantities: Callable[[Mapping[str, Tensor]], Tensor], names: Sequence[str]
) -> Quantities:
    """Return the quantities of a reference by name, computed from samples of the sites."""
    columns = quantities(sites).double().unbind(-1)
    return dict(zip(names, columns, strict=True))


def element_quantities(
    sites: Mapping[str, Tensor], max_quantities: int, num_categories: Mapping[str, int] = MappingProxyType({})
) -> tuple[Quantities, int]:
    """Return the first elements of the sites, named with indices from 0.

    An element of a categorical site gives one indicator per category, whose mean is the probability of the category.
    """
    found = dict(islice(_quantities(sites, num_categories), max_quantities))
    return found, sum(value[0].numel() * num_categories.get(site, 1) for site, value in sites.items())


def _quantities(
    sites: Mapping[str, Tensor], num_categories: Mapping[str, int]
) -> Iterator[tuple[str, Float64[Tensor, " draws"]]]:
    for site, value in sites.items():
        for index in np.ndindex(*value.shape[1:]):
            name, element = element_name(site, index), value[(slice(None), *index)].double()
            if site not in num_categories:
                yield name, element
            for category in range(num_categories.get(site, 0)):
                yield f"{name}={category}", (element == category).double().where(~element.isnan(), element)


def element_name(site: str, index: tuple[int, ...]) -> str:
    return f"{site}[{','.join(map(str, index))}]" if index else site


def moments(found: Quantities, reference: ReferenceMoments | None) -> dict[str, float]:
    """Return means and standard deviations as metrics ``mean_NAME`` and ``sd_NAME``, with those of the reference.

    With a reference also ``reference_mean_gap``, the largest difference of a mean in units of the reference's standard
    deviation, and the range of the ratios of the standard deviations, ``reference_sd_ratio_low`` and
    ``reference_sd_ratio_high``. NaN samples are ignored.
    """
    metrics: dict[str, float] = {}
    for name, draws in found.items():
        present = draws[~draws.isnan()]
        metrics |= {f"mean_{name}": present.mean().item(), f"sd_{name}": present.std(correction=0).item()}
    if reference is None:
        return metrics
    for name, mean, sd in zip(reference.names, reference.mean.tolist(), reference.sd.tolist(), strict=True):
        metrics |= {f"reference_mean_{name}": mean, f"reference_sd_{name}": sd}
    ratios = [metrics[f"sd_{name}"] / metrics[f"reference_sd_{name}"] for name in found]
    return {
        **metrics,
        "reference_mean_gap": max(_mean_gap(metrics, name) for name in found),
        "reference_sd_ratio_low": min(ratios),
        "reference_sd_ratio_high": max(ratios),
    }


def _mean_gap(metrics: Mapping[str, float], name: str) -> float:
    return abs(metrics[f"mean_{name}"] - metrics[f"reference_mean_{name}"]) / metrics[f"reference_sd_{name}"]


def moments_table(metrics: Mapping[str, float]) -> list[str]:
    names = [key.removeprefix("mean_") for key in metrics if key.startswith("mean_")]
    compared = "reference_mean_gap" in metrics
    rows = [["", "guide", *(("reference", "distance") if compared else ())]]
    for name in names:
        row = [name, _format_moments(metrics[f"mean_{name}"], metrics[f"sd_{name}"])]
        if compared:
            of_reference = _format_moments(metrics[f"reference_mean_{name}"], metrics[f"reference_sd_{name}"])
            row += [of_reference, f"{_mean_gap(metrics, name):.2f} sd"]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([f"{row[0]:<{widths[0]}}", *(f"{x:>{n}}" for x, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def _format_moments(mean: float, sd: float) -> str:
    return f"{mean:.4g} ({sd:.3g})"
