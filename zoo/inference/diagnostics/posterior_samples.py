import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float64
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.distributions import Categorical, Distribution

from zoo._constraints import COUNT, check_constraints
from zoo.gradients.graphs._distributions import support_of
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.diagnostics._args import as_args
from zoo.inference.elbo._messages import innermost
from zoo.inference.elbo._sites import Run, all_sites, plate_nesting
from zoo.inference.elbo._subsampling import Subsamples, is_subsampled
from zoo.inference.elbo._tracing import ModelGuideCall, Program, trace_model_and_guide, trace_vectorized
from zoo.inference.elbo._validation.sites import check_match
from zoo.inference.elbo._validation.vectorization import find_mismatch, sum_log_probs

logger = logging.getLogger(__name__)
CONSTRAINTS = {"num_samples": COUNT, "chunk_size": COUNT}


class PosteriorSamples(NamedTuple):
    """Samples of a guide, with the log-densities of guide and model.

    Example:
        >>> log_p, log_q = torch.tensor([-1.0, -3.0]).double(), torch.tensor([-1.0, -2.0]).double()
        >>> PosteriorSamples({}, log_p, log_q, {}, {}, subsampled=False).log_weights
        tensor([ 0., -1.], dtype=torch.float64)
    """

    sites: Mapping[str, Tensor]
    """Latent variables of the model, ``(num_samples, *shape)``; NaN in samples without the site. Sites in ``local``,
    and sites whose shape varies between samples, are omitted."""
    log_p: Float64[Tensor, " samples"]
    """``log p(x, z)`` in nats."""
    log_q: Float64[Tensor, " samples"]
    """``log q(z)`` in nats."""
    observed: Mapping[str, Tensor]
    log_likelihood: Mapping[str, Tensor]
    """Unscaled log-likelihood of each datum, ``(num_samples, *batch)``, in nats, if requested; 0 where masked."""
    subsampled: bool
    """Whether each sample used its own subsample of the data. ``log_p`` is then an unbiased estimate, and ``observed``
    and ``log_likelihood`` are empty."""
    continuous: frozenset[str] = frozenset()
    """Sites with a density."""
    scaled: bool = False
    """Whether terms of ``log_p`` or ``log_q`` are scaled, as by ``poutine.scale``."""
    local: frozenset[str] = frozenset()
    """Latent variables in a subsampled plate. They belong to other data in each sample, so they cannot be averaged."""
    num_categories: Mapping[str, int] = MappingProxyType({})
    """Number of categories of each categorical site."""

    @property
    def num_constant_elements(self) -> int:
        """Number of elements of continuous sites that are equal in all samples."""
        constant = [(x == x[:1]).all(0) for name, x in self.sites.items() if name in self.continuous]
        return sum(int(equal.sum()) for equal in constant) if len(self.log_p) > 1 else 0

    @property
    def log_weights(self) -> Float64[Tensor, " samples"]:
        """``log p(x, z) - log q(z)``, whose mean is the ELBO."""
        return self.log_p - self.log_q

    def finite_log_weights(self) -> Float64[Tensor, " samples"]:
        """Return ``log_weights``; raise ``FloatingPointError`` if one is not finite."""
        if wrong := (~self.log_weights.isfinite()).nonzero().flatten().tolist():
            first = f"in sample {wrong[0]} log p is {self.log_p[wrong[0]]:.6g} and log q is {self.log_q[wrong[0]]:.6g}"
            raise FloatingPointError(
                f"{len(wrong)} of {len(self.log_weights)} samples have a weight that is not finite; {first}: check the "
                "parameters, and whether values lie outside the model's support"
            )
        return self.log_weights


class ElboEstimate(NamedTuple):
    """Estimate of the evidence lower bound ``E_q[log p(x, z) - log q(z)]``, in nats.

    Example:
        >>> print(ElboEstimate(value=-12.3456, standard_error=0.0123, num_samples=1000))
        ELBO -12.346 ± 0.012 nats (standard error over 1,000 fresh samples)
    """

    value: float
    standard_error: float
    num_samples: int

    def __str__(self) -> str:
        error = f"standard error over {self.num_samples:,} fresh samples"
        return f"ELBO {self.value:.3f} ± {self.standard_error:.2g} nats ({error})"


def elbo_estimate(samples: PosteriorSamples) -> ElboEstimate:
    """Estimate the ELBO from at least 2 samples of a guide; raise ``FloatingPointError`` if a weight is not finite.

    Example:
        >>> log_p = torch.tensor([-1.0, -3.0], dtype=torch.float64)
        >>> elbo_estimate(PosteriorSamples({}, log_p, 0 * log_p, {}, {}, False))
        ElboEstimate(value=-2.0, standard_error=1.0, num_samples=2)
    """
    log_weights = samples.finite_log_weights()
    count = len(log_weights)
    if count < 2:
        raise ValueError(f"a standard error needs at least 2 samples, got {count}")
    return ElboEstimate(log_weights.mean().item(), log_weights.std().item() / count**0.5, count)


def sample_posterior(
    model: Program,
    guide: Program,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    num_samples: int = 1000,
    chunk_size: int = 1000,
    log_likelihood: bool = False,
    progress: bool = False,
) -> PosteriorSamples:
    """Sample from a guide, and return the samples with their log-densities, without gradients.

    Samples are vectorized in an outer plate if possible. The program runs once per sample if its control flow depends
    on sampled values, if it subsamples the data (each sample then has its own subsample), or if its samples in the
    plate depend on each other.

    Args:
        model: Pyro model.
        guide: Pyro guide.
        args: positional arguments of both.
        kwargs: keyword arguments of both.
        num_samples: number of samples.
        chunk_size: maximum number of samples in one run.
        log_likelihood: keep the log-likelihood of each datum.
        progress: log the reason and show a progress bar on a terminal, if the program runs once per sample.

    Raises:
        ValueError: guide and model do not match.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model():
        ...     pyro.sample("x", dist.Normal(pyro.sample("z", dist.Bernoulli(0.5)), 1.0), obs=torch.tensor(0.5))
        >>> def guide():
        ...     pyro.sample("z", dist.Bernoulli(0.5))
        >>> found = sample_posterior(model, guide, num_samples=100)
        >>> found.sites["z"].shape, found.log_weights.std().item() < 1e-5  # the guide is the posterior
        (torch.Size([100]), True)
    """
    check_constraints({"num_samples": num_samples, "chunk_size": chunk_size}, CONSTRAINTS)
    call, subsamples = ModelGuideCall(model, guide, as_args(args), dict(kwargs or {})), Subsamples()
    with torch.no_grad():
        single_run = trace_model_and_guide(call, subsamples)
        check_match(single_run)
        if single_run.control_dependencies:
            reason = f"the control flow depends on values of {quote_names(single_run.control_dependencies)}"
        elif is_subsampled(subsamples):
            reason = "each has its own subsample"
        elif num_samples > 1:
            full, rest = divmod(num_samples, chunk_size)
            sizes = [chunk_size] * full + [rest] * (rest > 0)
            try:
                return _concatenate([_sample_vectorized(call, single_run, size, log_likelihood) for size in sizes])
            except (ValueError, RuntimeError, IndexError) as error:
                reason = f"they cannot be vectorized: {error}"
        else:
            reason = "there is only one"
        if progress:
            logger.warning("%s samples of the guide are drawn one by one, because %s.", f"{num_samples:,}", reason)
        return _sample_sequentially(call, num_samples, log_likelihood, progress)


def _sample_sequentially(
    call: ModelGuideCall, num_samples: int, keep_log_likelihood: bool, progress: bool
) -> PosteriorSamples:
    console = Console(stderr=True)
    shown = progress and console.is_terminal
    parts, local, subsampled = [], set(), False
    for _ in track(range(num_samples), "samples of the guide", console=console, disable=not shown, transient=True):
        subsamples = Subsamples()
        run = trace_model_and_guide(call, subsamples)
        check_match(run)
        parts.append(_make_samples(run, run, 1, keep_log_likelihood))
        if is_subsampled(subsamples):
            subsampled = True
            local |= _local_sites(run, subsamples)
    found = _concatenate(parts)
    if not subsampled:
        return found
    sites = {name: value for name, value in found.sites.items() if name not in local}
    return found._replace(sites=sites, observed={}, log_likelihood={}, subsampled=True, local=frozenset(local))


def _local_sites(run: Run, subsamples: Subsamples) -> set[str]:
    """Return the latent variables in subsampled plates."""
    plates = {name for name, indices in subsamples.items() if is_subsampled({name: indices})}
    return {name for name, site in run.model.items() if not site.observed and plates & {x.name for x in site.plates}}


def _sample_vectorized(
    call: ModelGuideCall, single_run: Run, count: int, keep_log_likelihood: bool
) -> PosteriorSamples:
    """Sample in one run; raise ``ValueError`` if the samples are not independent of each other."""
    run = trace_vectorized(call, count, plate_nesting(single_run), {})
    if (mismatch := find_mismatch(run, single_run, count, call, {})) is not None:
        raise ValueError(str(mismatch))
    return _make_samples(run, single_run, count, keep_log_likelihood)


def _make_samples(run: Run, single_run: Run, count: int, keep_log_likelihood: bool) -> PosteriorSamples:
    """Return the samples of a run; each has the shapes of ``single_run``."""
    latent = {name: site for name, site in run.model.items() if not site.observed}
    observed = {name: site for name, site in run.model.items() if site.observed}
    return PosteriorSamples(
        sites={name: site.value.reshape(count, *single_run.model[name].value.shape) for name, site in latent.items()},
        log_p=sum_log_probs(run.model, count),
        log_q=sum_log_probs(run.guide, count),
        observed={name: single_run.model[name].value for name in observed},
        log_likelihood={
            name: (site.density.log_prob / site.scale).reshape(count, *single_run.model[name].density.log_prob.shape)
            for name, site in observed.items()
            if keep_log_likelihood
        },
        subsampled=False,
        continuous=frozenset(name for name, site in latent.items() if _is_continuous(site.distribution)),
        scaled=any(bool((torch.as_tensor(site.scale) != 1).any()) for _, site in all_sites([run])),
        num_categories={
            name: one.param_shape[-1]
            for name, site in latent.items()
            if isinstance(one := innermost(site.distribution), Categorical)
        },
    )


def _is_continuous(distribution: Distribution) -> bool:
    """Whether a distribution has a density; false if its support is unknown."""
    support = support_of(distribution)
    return support is not None and not support.is_discrete


def _concatenate(parts: Sequence[PosteriorSamples]) -> PosteriorSamples:
    first = parts[0]
    return PosteriorSamples(
        sites=_concatenate_sites([part.sites for part in parts]),
        log_p=torch.cat([part.log_p for part in parts]),
        log_q=torch.cat([part.log_q for part in parts]),
        observed={name: x for name, x in first.observed.items() if all(name in part.observed for part in parts)},
        log_likelihood=_concatenate_sites([part.log_likelihood for part in parts]),
        subsampled=False,
        continuous=frozenset.union(*(part.continuous for part in parts)),
        scaled=any(part.scaled for part in parts),
        num_categories={name: count for part in parts for name, count in part.num_categories.items()},
    )


def _concatenate_sites(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Concatenate the values of each site, with NaN where it is absent; omit sites whose shape varies."""
    found = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        present = [part[name] for part in parts if name in part]
        if len({value.shape[1:] for value in present}) > 1:
            continue
        if len(present) < len(parts):
            dtype = torch.promote_types(present[0].dtype, torch.get_default_dtype())
            nan = torch.full_like(present[0], torch.nan, dtype=dtype)
            present = [part.get(name, nan).to(dtype) for part in parts]
        found[name] = torch.cat(present)
    return found
