from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.inference.elbo._sites import Plates, Run, Site


class ScoreFunctionTerm(NamedTuple):
    """Log-probability of a site, whose gradient is the score function, with the learning signal that multiplies it."""

    log_prob: Float[Tensor, " particles *batch"]
    signal: Float[Tensor, " particles *batch"]
    """Sum of the terms of the ELBO that the site influences, detached, in nats."""
    sites: Sequence[Site | None]
    """The site in each run; None in runs that did not sample it."""

    @property
    def site(self) -> Site:
        return next(site for site in self.sites if site is not None)

    @property
    def mask(self) -> Bool[Tensor, " particles *batch"] | None:
        """False for particles that did not sample the site; None if all did."""
        if all(site is not None for site in self.sites):
            return None
        sampled = torch.tensor([site is not None for site in self.sites], device=self.signal.device)
        return sampled.reshape(-1, *(1,) * (self.signal.ndim - 1)).expand(self.signal.shape)

    def first(self, num_particles: int) -> "ScoreFunctionTerm":
        if len(self.signal) == num_particles:
            return self
        return ScoreFunctionTerm(self.log_prob[:num_particles], self.signal[:num_particles], self.sites[:num_particles])


def downstream_costs(run: Run) -> dict[str, Tensor]:
    """Return the learning signal of each site with a score function: the sum of the ELBO's terms that it influences.

    As in Pyro's ``TraceGraph_ELBO``, a "cost" is a sum of ``log p - log q``, which is maximized. Costs are detached.
    Theorem 1 of Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015; for a
    mean-field guide it is equation 6 of Ranganath, Gerrish & Blei, "Black box variational inference", 2014. The shapes
    broadcast to those of the scores.
    """
    of_guide, of_model = run.dependencies()
    costs: dict[str, Tensor] = {}
    for sites, dependencies, sign in ((run.model, of_model, 1), (run.guide, of_guide, -1)):
        for site, sources in zip(sites.values(), dependencies, strict=True):
            term, summed = site.density.log_prob.detach(), {}
            for source, plates in sources.items():
                if run.guide[source].density.score is None:
                    continue
                if plates not in summed:
                    summed[plates] = sum_to_plates(term, plates)
                cost = summed[plates] if sign == 1 else -summed[plates]
                costs[source] = costs[source] + cost if source in costs else cost
    return costs


def sum_to_plates(x: Tensor, plates: Plates) -> Tensor:
    """Sum over all dimensions that are not plates. Summed dimensions keep size 1, but leading ones are dropped."""
    if not x.ndim:
        return x
    kept = {plate.dim for plate in plates}
    others = [dim for dim in range(-x.ndim, 0) if dim not in kept and x.shape[dim] > 1]
    if others:
        x = x.sum(others, keepdim=True)
    shape = x.shape[min(kept) :] if kept else torch.Size()
    return x if x.shape == shape else x.reshape(shape)


def score_function_terms(runs: Sequence[Run], vectorized: bool) -> dict[str, ScoreFunctionTerm]:
    """Return the term of each site, over the particles of several runs, or of the first dimension of a single run."""
    costs = [downstream_costs(run) for run in runs]
    names = dict.fromkeys(name for each in costs for name in each)
    if not vectorized:
        return {name: _stack_terms(name, runs, costs) for name in names}
    log_probs = {name: _log_prob_of(runs[0].guide[name]) for name in names}
    return {
        name: ScoreFunctionTerm(x, costs[0][name].expand(x.shape), [runs[0].guide[name]])
        for name, x in log_probs.items()
    }


def _stack_terms(name: str, runs: Sequence[Run], costs: Sequence[Mapping[str, Tensor]]) -> ScoreFunctionTerm:
    sites = [run.guide.get(name) for run in runs]
    log_probs = [None if site is None else _log_prob_of(site) for site in sites]
    shapes = {log_prob.shape for log_prob in log_probs if log_prob is not None}
    if len(shapes) > 1:
        raise ValueError(
            f"the shape of site {name!r} differs between particles: {sorted(map(tuple, shapes))}; include the shape in "
            "the name of the site, or use num_particles=1"
        )
    if len(runs) == 1 and log_probs[0] is not None:  # faster than stacking
        log_prob = log_probs[0].unsqueeze(0)
        return ScoreFunctionTerm(log_prob, costs[0][name].expand(log_prob.shape), sites)
    blank = next(log_prob.new_zeros(()) for log_prob in log_probs if log_prob is not None).expand(*shapes)
    return ScoreFunctionTerm(
        stack_parts(log_probs, blank), stack_parts([each.get(name) for each in costs], blank), sites
    )


def stack_parts(parts: Iterable[Tensor | None], blank: Tensor) -> Tensor:
    """Stack tensors expanded to the shape of ``blank``; ``blank`` replaces missing tensors."""
    return torch.stack([blank if part is None else part.expand(blank.shape) for part in parts])


def _log_prob_of(site: Site) -> Tensor:
    """Return the log-probability whose gradient is the score of a site, ``(*plates)``."""
    return sum_to_plates(site.density.score, site.plates)  # type: ignore[arg-type]
