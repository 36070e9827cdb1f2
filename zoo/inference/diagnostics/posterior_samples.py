import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.distributions import Categorical, Distribution

from zoo.constraints import COUNT, check_constraints
from zoo.gradients.graphs._distributions import support_of
from zoo.gradients.graphs._provenance.provenance import listed
from zoo.inference.elbo._messages import innermost
from zoo.inference.elbo._sites import Run, Site, nesting, sites_of
from zoo.inference.elbo._subsampling import Subsamples, is_subsampled
from zoo.inference.elbo._tracing import record, record_at_once
from zoo.inference.elbo._validation.checks import check_match
from zoo.inference.elbo._validation.comparison import log_density, mixed

logger = logging.getLogger(__name__)

Program = Callable[..., Any]


class Draws(NamedTuple):
    """Fresh draws of a guide, and what guide and model say of each."""

    sites: Mapping[str, Tensor]
    """Latent variables of the model, ``(draws, *shape)``. NaN where a draw has none; those whose shape changes from
    draw to draw are left out, and so are those in ``local``."""
    log_p: Float64[Tensor, " draws"]
    """``log p(x, z)``, in nats."""
    log_q: Float64[Tensor, " draws"]
    """``log q(z)``, in nats."""
    observed: Mapping[str, Tensor]
    """Data of the model."""
    log_likelihood: Mapping[str, Tensor]
    """Of each datum, ``(draws, *batch)``, in nats and unscaled, if it was asked for; 0 of what is masked."""
    subsampled: bool
    """Each draw saw another part of the data: ``log_p`` is an unbiased estimate, and no data are kept."""
    continuous: frozenset[str] = frozenset()
    """Sites whose values have a density."""
    scaled: bool = False
    """Terms of ``log_p`` and ``log_q`` count more or less than once."""
    local: frozenset[str] = frozenset()
    """Latent variables in a plate that subsamples: they belong to other data in each draw, so that no average over the
    draws has a meaning."""
    num_categories: Mapping[str, int] = MappingProxyType({})
    """Of categorical sites, whose values are numbers of categories."""

    @property
    def points(self) -> int:
        """How many elements of continuous sites are the same in all draws: the weights cannot tell what these miss."""
        constant = [(x == x[:1]).all(0) for name, x in self.sites.items() if name in self.continuous]
        return sum(int(alike.sum()) for alike in constant) if len(self.log_p) > 1 else 0

    @property
    def log_weights(self) -> Float64[Tensor, " draws"]:
        """``log p(x, z) - log q(z)``: the ELBO is its mean."""
        return self.log_p - self.log_q


def draw(
    model: Program,
    guide: Program,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    draws: int = 1000,
    at_once: int = 1000,
    log_likelihood: bool = False,
    progress: bool = False,
) -> Draws:
    """Draw from a guide, and take the log-densities of what was drawn, without gradients.

    Many draws are made in one run, in a plate around model and guide, if nothing speaks against it: values that steer
    the program, subsamples (each draw gets its own), or a program that says something else of a draw among others than
    of the same draw alone. Then they are made one by one.

    Args:
        model: Pyro model.
        guide: of it.
        args: of both.
        kwargs: of both.
        draws: how many.
        at_once: most draws in one run.
        log_likelihood: keep the log-likelihood of each datum.
        progress: where draws are made one by one, which takes long, say why, and show on a terminal how far it is.

    Raises:
        ValueError: the numbers make no sense, or guide and model do not fit each other.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=torch.tensor(0.5))
        >>> def guide():
        ...     pyro.sample("z", dist.Bernoulli(0.5))
        >>> found = draw(model, guide, draws=100)
        >>> found.sites["z"].shape, found.log_weights.std().item() < 1e-5  # the guide is the posterior
        (torch.Size([100]), True)
    """
    check_constraints({"draws": draws, "at_once": at_once}, {"draws": COUNT, "at_once": COUNT})
    both, subsamples = (model, guide, arguments(args), dict(kwargs or {})), Subsamples()
    with torch.no_grad():
        alone = record(*both, subsamples)
        check_match(alone)
        if alone.steered_by:
            reason = f"values of {listed(alone.steered_by)} steer the program"
        elif is_subsampled(subsamples):
            reason = "each has a subsample of its own"
        elif draws > 1:
            sizes = [at_once] * (draws // at_once) + [draws % at_once] * (draws % at_once > 0)
            try:
                return joined([drawn_at_once(*both, alone, size, log_likelihood) for size in sizes])
            except (ValueError, RuntimeError, IndexError) as error:
                reason = f"many cannot be made at once: {error}"
        else:
            reason = "there is one"
        if progress:
            logger.warning("%s draws of the guide are made one by one, as %s.", f"{draws:,}", reason)
        return _drawn_one_by_one(*both, draws, log_likelihood, progress)


def _drawn_one_by_one(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    draws: int,
    keep: bool,
    progress: bool,
) -> Draws:
    """Make each draw in a run of its own, with subsamples of its own."""
    console = Console(stderr=True)
    shown = progress and console.is_terminal
    parts, local, subsampled = [], set(), False
    for _ in track(range(draws), "draws of the guide", console=console, disable=not shown, transient=True):
        subsamples = Subsamples()
        run = record(model, guide, args, kwargs, subsamples)
        check_match(run)
        parts.append(draws_of(run, run, 1, keep))
        if is_subsampled(subsamples):
            subsampled = True
            local |= _local_sites(run, subsamples)
    found = joined(parts)
    if not subsampled:
        return found
    sites = {name: value for name, value in found.sites.items() if name not in local}
    return found._replace(sites=sites, observed={}, log_likelihood={}, subsampled=True, local=frozenset(local))


def _local_sites(run: Run, subsamples: Subsamples) -> set[str]:
    """Names of the latent variables in plates that use fewer elements than they have."""
    plates = {name for name, indices in subsamples.items() if is_subsampled({name: indices})}
    return {
        name for name, site in run.model.items() if not site.observed and {plate.name for plate in site.plates} & plates
    }


def arguments(args: Sequence[Any]) -> tuple[Any, ...]:
    """Give the arguments of a program, if that is what they are.

    Raises:
        ValueError: it is one argument alone.
    """
    if not isinstance(args, tuple | list):
        raise ValueError(f"args must be a tuple, (x,) for one argument, got {type(args).__name__}")
    return tuple(args)


def drawn_at_once(
    model: Program, guide: Program, args: tuple[Any, ...], kwargs: dict[str, Any], alone: Run, count: int, keep: bool
) -> Draws:
    """Make many draws in one run.

    Raises:
        ValueError: guide or model say something else of the first or last draw when it is alone.
    """
    both = model, guide, args, kwargs
    run = record_at_once(count, nesting(alone) + 1, *both, {})
    if (wrong := mixed(run, alone, count, both, {})) is not None:
        raise ValueError(str(wrong))
    return draws_of(run, alone, count, keep)


def draws_of(run: Run, alone: Run, count: int, keep: bool) -> Draws:
    """Arrange what a run has of so many draws; values get the shapes that they have in a run of one draw."""
    latent = {name: site for name, site in run.model.items() if not site.observed}
    seen = {name: site for name, site in run.model.items() if site.observed}
    return Draws(
        sites={name: site.value.reshape(count, *alone.model[name].value.shape) for name, site in latent.items()},
        log_p=log_density(run.model, count),
        log_q=log_density(run.guide, count),
        observed={name: alone.model[name].value for name in seen},
        log_likelihood={
            name: (site.density.log_prob / site.scale).reshape(count, *alone.model[name].density.log_prob.shape)
            for name, site in seen.items()
            if keep
        },
        subsampled=False,
        continuous=frozenset(name for name, site in latent.items() if is_continuous(site.distribution)),
        scaled=any(is_scaled(site) for _, site in sites_of([run])),
        num_categories={
            name: one.param_shape[-1]
            for name, site in latent.items()
            if isinstance(one := innermost(site.distribution), Categorical)
        },
    )


def is_scaled(site: Site) -> bool:
    """Tell whether the log-probability of a site counts more or less than once."""
    return bool((torch.as_tensor(site.scale) != 1).any())


def is_continuous(distribution: Distribution) -> bool:
    """Tell whether values have a density; a distribution that does not say has none."""
    support = support_of(distribution)
    return support is not None and not support.is_discrete


def joined(parts: Sequence[Draws]) -> Draws:
    """Put draws behind one another."""
    first = parts[0]
    return Draws(
        sites=joined_values([part.sites for part in parts]),
        log_p=torch.cat([part.log_p for part in parts]),
        log_q=torch.cat([part.log_q for part in parts]),
        observed={name: x for name, x in first.observed.items() if all(name in part.observed for part in parts)},
        log_likelihood=joined_values([part.log_likelihood for part in parts]),
        subsampled=False,
        continuous=frozenset.union(*(part.continuous for part in parts)),
        scaled=any(part.scaled for part in parts),
        num_categories={name: count for part in parts for name, count in part.num_categories.items()},
    )


def joined_values(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put values behind one another, with NaN where there is none; leave out those of changing shape."""
    names = dict.fromkeys(name for part in parts for name in part)
    each = {name: [part.get(name) for part in parts] for name in names}
    return {name: with_gaps(values) for name, values in each.items() if len(shapes_of(values)) == 1}


def shapes_of(values: Sequence[Tensor | None]) -> set[torch.Size]:
    """Shapes that single draws have."""
    return {value.shape[1:] for value in values if value is not None}


def with_gaps(values: Sequence[Tensor | None]) -> Tensor:
    """Put values behind one another, with NaN where there is none."""
    present = [value for value in values if value is not None]
    if len(present) == len(values):
        return torch.cat(present)
    gap = torch.full_like(present[0], torch.nan, dtype=torch.promote_types(present[0].dtype, torch.get_default_dtype()))
    return torch.cat([gap if value is None else value.to(gap.dtype) for value in values])
