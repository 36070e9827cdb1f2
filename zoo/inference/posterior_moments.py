from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from types import MappingProxyType

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from zoo.data.posteriordb import ReferenceMoments

Quantities = dict[str, Float64[Tensor, " draws"]]


def named_quantities(
    sites: Mapping[str, Tensor], quantities: Callable[[Mapping[str, Tensor]], Tensor], names: Sequence[str]
) -> Quantities:
    """Compute what a reference speaks of from draws of sites, by the reference's names."""
    columns = quantities(sites).double().unbind(-1)
    return dict(zip(names, columns, strict=True))


def elements_of(
    sites: Mapping[str, Tensor], most: int, num_categories: Mapping[str, int] = MappingProxyType({})
) -> tuple[Quantities, int]:
    """Take the first elements of sites, by names with indices from 0.

    The numbers of categories have no mean. So an element of a categorical site gives a quantity for each category: 1 in
    the draws that are of it, else 0, whose mean is the probability of the category.

    Args:
        sites: each ``(draws, *shape)``.
        most: quantities to take.
        num_categories: of sites that are categorical.

    Returns:
        The quantities, and how many there are in all.

    Example:
        >>> import torch
        >>> found, count = elements_of({"a": torch.ones(9), "b": torch.ones(9, 2, 2)}, most=3)
        >>> list(found), count
        (['a', 'b[0,0]', 'b[0,1]'], 5)
        >>> found, count = elements_of({"c": torch.tensor([0, 2, 2, 2])}, most=20, num_categories={"c": 3})
        >>> {name: indicator.mean().item() for name, indicator in found.items()}, count
        ({'c=0': 0.25, 'c=1': 0.0, 'c=2': 0.75}, 3)
    """
    found = dict(islice(_quantities(sites, num_categories), most))
    return found, sum(value[0].numel() * num_categories.get(site, 1) for site, value in sites.items())


def _quantities(
    sites: Mapping[str, Tensor], num_categories: Mapping[str, int]
) -> Iterator[tuple[str, Float64[Tensor, " draws"]]]:
    for site, value in sites.items():
        for index in np.ndindex(*value.shape[1:]):
            name, element = labelled(site, index), value[(slice(None), *index)].double()
            if site not in num_categories:
                yield name, element
            for category in range(num_categories.get(site, 0)):
                yield f"{name}={category}", (element == category).double().where(~element.isnan(), element)


def labelled(site: str, index: tuple[int, ...]) -> str:
    """Name an element of a site.

    Example:
        >>> labelled("beta", (0, 2)), labelled("tau", ())
        ('beta[0,2]', 'tau')
    """
    return f"{site}[{','.join(map(str, index))}]" if index else site


def moments(found: Quantities, reference: ReferenceMoments | None) -> dict[str, float]:
    """Means and standard deviations as figures, ``mean_NAME`` and ``sd_NAME``, and beside them the reference's.

    With a reference there are also ``reference_mean_gap``, the largest distance of a mean in the reference's standard
    deviations, and the smallest and largest ratio of a standard deviation to the reference's,
    ``reference_sd_ratio_low`` and ``reference_sd_ratio_high``. Draws that do not have a quantity do not count.

    Example:
        >>> import torch
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> reference = ReferenceMoments(("mu",), 3 * one, one, 13 * one, one)
        >>> figures = moments({"mu": torch.tensor([0.0, 2.0]).double()}, reference)
        >>> {name: figures[name] for name in ("mean_mu", "sd_mu", "reference_mean_mu", "reference_sd_mu")}
        {'mean_mu': 1.0, 'sd_mu': 1.0, 'reference_mean_mu': 3.0, 'reference_sd_mu': 2.0}
        >>> figures["reference_mean_gap"], figures["reference_sd_ratio_low"], figures["reference_sd_ratio_high"]
        (1.0, 0.5, 0.5)
    """
    figures: dict[str, float] = {}
    for name, draws in found.items():
        present = draws[~draws.isnan()]
        figures |= {f"mean_{name}": present.mean().item(), f"sd_{name}": present.std(correction=0).item()}
    if reference is None:
        return figures
    for name, mean, sd in zip(reference.names, reference.mean.tolist(), reference.sd.tolist(), strict=True):
        figures |= {f"reference_mean_{name}": mean, f"reference_sd_{name}": sd}
    ratios = [figures[f"sd_{name}"] / figures[f"reference_sd_{name}"] for name in found]
    return {
        **figures,
        "reference_mean_gap": max(distance(figures, name) for name in found),
        "reference_sd_ratio_low": min(ratios),
        "reference_sd_ratio_high": max(ratios),
    }


def distance(figures: Mapping[str, float], name: str) -> float:
    """Distance of a mean from the reference's, in the reference's standard deviations."""
    return abs(figures[f"mean_{name}"] - figures[f"reference_mean_{name}"]) / figures[f"reference_sd_{name}"]


def moments_table(figures: Mapping[str, float]) -> list[str]:
    """Write the figures of ``moments`` as the lines of a table.

    Example:
        >>> moments_table({"mean_mu": 1.0, "sd_mu": 0.5})
        ['        guide', '  mu  1 (0.5)']
    """
    names = [key.removeprefix("mean_") for key in figures if key.startswith("mean_")]
    compared = "reference_mean_gap" in figures
    rows = [["", "guide", *(("reference", "distance") if compared else ())]]
    for name in names:
        row = [name, written(figures[f"mean_{name}"], figures[f"sd_{name}"])]
        if compared:
            of_reference = written(figures[f"reference_mean_{name}"], figures[f"reference_sd_{name}"])
            row += [of_reference, f"{distance(figures, name):.2f} sd"]
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join([f"{row[0]:<{widths[0]}}", *(f"{x:>{n}}" for x, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]


def written(mean: float, sd: float) -> str:
    """Write a mean with its standard deviation behind it.

    Example:
        >>> written(77.5512, 2.0456)
        '77.55 (2.05)'
    """
    return f"{mean:.4g} ({sd:.3g})"
