import logging
import math
import warnings

import torch
from torch.distributions import Distribution

from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import HighVarianceWarning, describe_site, innermost
from zoo.inference.elbo._sites import PARTICLES, Run, Site
from zoo.inference.elbo._validation.sites import check_data, check_score, check_shapes

Signature = tuple[str, str, type[Distribution], type[Distribution], bool, torch.Size, torch.Size]

logger = logging.getLogger(__name__)

MAX_NAMES = 5  # of further sites in a warning


class SiteRegistry:
    """Validates each site when it is new or has changed, and reports how its gradient is estimated."""

    def __init__(self) -> None:
        self.signatures: set[Signature] = set()
        self.reported: set[str] = set()
        self.discontinuous: set[str] = set()
        self.warned_of_variance = False
        self.guide_only_plates: set[str] = set()

    def validate(self, run: Run) -> bool:
        """Check the latent sites of a run, and return whether any site is new."""
        new = {name for name in {**run.guide, **run.model} if not _signatures(run, name) <= self.signatures}
        for site in _latent_sites(run):
            check_score(site)  # always, since a bound of the support may have become a parameter
            if site.name in new and site.name in run.model:
                check_shapes(site, run.model[site.name])
        return bool(new)

    def register(self, run: Run) -> None:
        """Remember the sites of a valid run, and report how gradients of new sites are estimated."""
        for name, site in run.model.items():
            if site.observed and not _signatures(run, name) <= self.signatures:
                check_data(site)  # late: the check of vectorized particles explains wrong shapes better
        self.signatures |= {signature for name in {**run.guide, **run.model} for signature in _signatures(run, name)}
        sites = [site for site in _latent_sites(run) if site.name not in self.reported]
        for site in sites:
            if site.density.score is None and "StraightThrough" in type(innermost(site.distribution)).__name__:
                warnings.warn(
                    f"{_describe(site)} uses the straight-through gradient, which is biased; wrap it in "
                    "NonReparameterized of zoo.inference.elbo to use the score function",
                    stacklevel=2,
                )
        self._warn_variance(run, [site for site in sites if _is_unplated(site)])
        if sites:
            self.reported |= {site.name for site in sites}
            method = {True: "pathwise", False: "score function"}
            described = [f"{_describe(site)} {method[site.density.score is None]}" for site in sites]
            logger.info("gradient of the ELBO: %s", "; ".join(described))
        names = {name for name in run.control_dependencies if run.guide[name].density.score is None}
        names -= self.discontinuous | run.asserted.keys()  # only one branch of an assert continues
        if names:
            self.discontinuous |= names
            warnings.warn(
                f"values of {quote_names(names)}, which have a pathwise gradient, determine the control flow (if, "
                "item(), an index): the pathwise gradient is biased, since the program is discontinuous; wrap the "
                "distribution of the guide in NonReparameterized of zoo.inference.elbo",
                stacklevel=2,
            )
        if plates := run.guide_only_plates - self.guide_only_plates:
            self.guide_only_plates |= plates
            warnings.warn(
                f"the guide has plates that the model does not have: {quote_names(plates)}; use plates of the same "
                "names in both",
                stacklevel=2,
            )

    def _warn_variance(self, run: Run, sites: list[Site]) -> None:
        """Warn once of sites that are scored outside plates; a Markov chain may have a hundred of them."""
        if not sites:
            return
        first, *others = (site.name for site in sites)
        if self.warned_of_variance:
            logger.info("also outside every plate: %s", ", ".join([first, *others]))
            return
        self.warned_of_variance = True
        more = f" and {len(others) - MAX_NAMES} more" if len(others) > MAX_NAMES else ""
        further = f". The same applies to {', '.join(map(repr, others[:MAX_NAMES]))}{more}" if others else ""
        warnings.warn(
            f"{_describe(sites[0])} has no pathwise gradient and is outside every plate: its score is multiplied with "
            f"the sum of all {_num_log_probs(run, first)} log-probabilities that it influences, so its gradient has a "
            "high variance; use more particles, a distribution with rsample, or a plate if its elements are "
            f"independent{further}",
            HighVarianceWarning,
            stacklevel=2,
        )


def _is_unplated(site: Site) -> bool:
    return site.density.score is not None and all(plate.name == PARTICLES for plate in site.plates)


def _latent_sites(run: Run) -> list[Site]:
    return [site for site in run.guide.values() if not site.observed]


def _signatures(run: Run, name: str) -> set[Signature]:
    """Return what is checked of a site in guide and model; if it is unchanged, the site is still valid."""
    return {
        (program, name, type(x), type(innermost(x)), site.density.score is None, x.batch_shape, site.value.shape)
        for program, sites in (("guide", run.guide), ("model", run.model))
        if (site := sites.get(name)) is not None
        for x in [site.distribution]
    }


def _describe(site: Site) -> str:
    return describe_site(site.name, site.distribution)


def _num_log_probs(run: Run, name: str) -> int:
    """Return the number of log-probabilities that each element of a site influences."""
    pairs = zip([*run.guide.values(), *run.model.values()], sum(run.dependencies(), ()), strict=True)
    return sum(
        site.density.log_prob.numel() // math.prod(plate.size for plate in sources[name])
        for site, sources in pairs
        if name in sources
    )
