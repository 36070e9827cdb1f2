from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.inference.elbo._dependencies import Plates
from zoo.inference.elbo._sites import Run, Site


class Score(NamedTuple):
    """Score of a site with what it is to be multiplied with."""

    log_prob: Float[Tensor, " particles *batch"]
    """Log-probability whose gradient is the score."""
    signal: Float[Tensor, " particles *batch"]
    """Sum of those terms of the ELBO that the site influences, detached, in nats."""
    sites: Sequence[Site | None]
    """Of each run; None where it did not draw the site."""

    @property
    def site(self) -> Site:
        """Of the first run that drew it."""
        return next(site for site in self.sites if site is not None)

    @property
    def present(self) -> Bool[Tensor, " particles *batch"] | None:
        """False for particles in which the site was not drawn; None if all drew it."""
        if all(site is not None for site in self.sites):
            return None
        drawn = torch.tensor([site is not None for site in self.sites], device=self.signal.device)
        return drawn.reshape(-1, *(1,) * (self.signal.ndim - 1)).expand(self.signal.shape)


def first(particles: int, score: Score) -> Score:
    """Keep so many particles."""
    if len(score.signal) == particles:
        return score
    return Score(score.log_prob[:particles], score.signal[:particles], score.sites[:particles])


def learning_signals(run: Run) -> dict[str, Tensor]:
    """For each site with a score, the sum of those terms of the ELBO that it influences.

    Theorem 1 of Schulman, Heess, Weber & Abbeel, "Gradient estimation using stochastic computation graphs", 2015; where
    the guide is a mean field it is equation 6 of Ranganath, Gerrish & Blei, "Black box variational inference", 2014.

    Returns:
        By site, of a shape that broadcasts to its score's, detached.
    """
    of_guide, of_model = run.reaches()
    signals: dict[str, Tensor] = {}
    for sites, reaches, sign in ((run.model, of_model, 1), (run.guide, of_guide, -1)):
        for site, reach in zip(sites.values(), reaches, strict=True):
            term, summed = site.density.log_prob.detach(), {}
            for source, plates in reach.items():
                if run.guide[source].density.score is None:
                    continue
                if plates not in summed:
                    summed[plates] = sum_outside(term, plates)
                signal = sign * summed[plates]
                signals[source] = signals[source] + signal if source in signals else signal
    return signals


def sum_outside(x: Tensor, plates: Plates) -> Tensor:
    """Sum over all dimensions but those of the plates; they are left with size 1, and dropped where they lead."""
    kept = {plate.dim for plate in plates}
    others = [dim for dim in range(-x.ndim, 0) if dim not in kept and x.shape[dim] > 1]
    if others:
        x = x.sum(others, keepdim=True)
    shape = x.shape[min(kept) :] if kept else torch.Size()
    return x if x.shape == shape else x.reshape(shape)


def scores(runs: Sequence[Run], at_once: bool) -> dict[str, Score]:
    """Arrange the scores and signals of all sites of all particles.

    Args:
        runs: one for each particle, or one of all.
        at_once: the particles are the first dimension of the only run.

    Raises:
        ValueError: a site has another shape in another particle.
    """
    signals = [learning_signals(run) for run in runs]
    names = dict.fromkeys(name for signal in signals for name in signal)
    if at_once:
        return {name: score_at_once(runs[0].guide[name], signals[0][name]) for name in names}
    return {name: stacked_score(name, runs, signals) for name in names}


def score_at_once(site: Site, signal: Tensor) -> Score:
    """Arrange the particles that one run holds."""
    log_prob = score_of(site)
    return Score(log_prob, signal.expand(log_prob.shape), [site])


def stacked_score(name: str, runs: Sequence[Run], signals: Sequence[Mapping[str, Tensor]]) -> Score:
    """Arrange the particles of several runs, some of which may not have drawn a site."""
    sites = [run.guide.get(name) for run in runs]
    log_probs = [None if site is None else score_of(site) for site in sites]
    shapes = {log_prob.shape for log_prob in log_probs if log_prob is not None}
    if len(shapes) > 1:
        raise ValueError(
            f"site {name!r} has not the same shape in all particles, but {sorted(map(tuple, shapes))}; give it a name "
            "that tells the shape, or use num_particles=1"
        )
    if len(runs) == 1 and log_probs[0] is not None:  # the same, sooner
        log_prob = log_probs[0].unsqueeze(0)
        return Score(log_prob, signals[0][name].expand(log_prob.shape), sites)
    blank = next(log_prob.new_zeros(()) for log_prob in log_probs if log_prob is not None).expand(*shapes)
    return Score(stack(log_probs, blank), stack([signal.get(name) for signal in signals], blank), sites)


def stack(parts: Iterable[Tensor | None], blank: Tensor) -> Tensor:
    """Stack tensors that broadcast to the shape of a blank, which stands where there is none."""
    return torch.stack([blank if part is None else part.expand(blank.shape) for part in parts])


def score_of(site: Site) -> Tensor:
    """Log-probability whose gradient is the score of a site that has one, ``(*plates)``."""
    return sum_outside(site.density.score, site.plates)  # type: ignore[arg-type]
