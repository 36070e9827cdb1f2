import logging
import math
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch.distributions import Distribution

from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._messages import innermost, site_of
from zoo.inference.elbo._sites import PARTICLES, Run, Site
from zoo.inference.elbo._validation.checks import check_data, check_shapes, check_support

Look = tuple[str, str, type[Distribution], type[Distribution], bool, torch.Size, torch.Size]

logger = logging.getLogger(__name__)

NAMED = 5  # further sites that a warning names


class Newcomers:
    """Looks at each site when it is first seen, or has become another one, and says how its gradient is estimated."""

    def __init__(self) -> None:
        self.looks: set[Look] = set()
        self.named: set[str] = set()
        self.jumping: set[str] = set()
        self.noisy = False
        self.plates: set[str] = set()

    def check(self, run: Run) -> bool:
        """Check what is new in a run; tell whether anything is.

        Raises:
            ValueError: guide and model do not agree on what a latent variable is, or it has no right gradient.
        """
        new = {name for name in {**run.guide, **run.model} if not looks_of(run, name) <= self.looks}
        for site in latent(run):
            check_support(site)  # always, as a bound may have become a parameter
            if site.name in new and site.name in run.model:
                check_shapes(site, run.model[site.name])
        return bool(new)

    def greet(self, run: Run) -> None:
        """Remember what was found right, and say how gradients are estimated that were not seen before."""
        for name, site in run.model.items():
            if site.observed and not looks_of(run, name) <= self.looks:
                check_data(site)  # after particles were found apart, which knows more of shapes that do not fit
        self.looks |= {look for name in {**run.guide, **run.model} for look in looks_of(run, name)}
        sites = [site for site in latent(run) if site.name not in self.named]
        for site in sites:
            if site.density.score is None:
                warn_of_straight_through(site)
        self._warn_once_of_noise(run, [site for site in sites if is_unplated(site)])
        if sites:
            self.named |= {site.name for site in sites}
            logger.info("gradient of the ELBO: %s", "; ".join(how(site) for site in sites))
        jumps = {name for name in run.steered_by if run.guide[name].density.score is None}
        jumps -= self.jumping | run.asserted.keys()  # of an assert there is but one way that goes on
        if jumps:
            self.jumping |= jumps
            warn_of_jumps(jumps)
        if plates := run.plates_of_guide_alone - self.plates:
            self.plates |= plates
            warn_of_plates(plates)

    def _warn_once_of_noise(self, run: Run, sites: list[Site]) -> None:
        """Warn of the first sites that are scored outside every plate; those of a chain may be a hundred, all alike."""
        if not sites:
            return
        if self.noisy:
            logger.info("outside every plate as well: %s", ", ".join(site.name for site in sites))
        else:
            warn_of_noise(sites[0], log_probabilities(run, sites[0].name), [site.name for site in sites[1:]])
        self.noisy = True


def is_unplated(site: Site) -> bool:
    """Whether a site is scored outside every plate but that of the particles."""
    return site.density.score is not None and all(plate.name == PARTICLES for plate in site.plates)


def latent(run: Run) -> list[Site]:
    """List what a guide draws."""
    return [site for site in run.guide.values() if not site.observed]


def looks_of(run: Run, name: str) -> set[Look]:
    """Tell what a site looks like in guide and model: if that is as before, so is what can be wrong with it."""
    return {
        (where, name, *kinds_of(site), site.density.score is None, site.distribution.batch_shape, site.value.shape)
        for where, sites in (("guide", run.guide), ("model", run.model))
        if (site := sites.get(name)) is not None
    }


def kinds_of(site: Site) -> tuple[type[Distribution], type[Distribution]]:
    """Return the classes of a site's distribution and of what it repeats, masks or declares one event."""
    return type(site.distribution), type(innermost(site.distribution))


def how(site: Site) -> str:
    """Say how the gradient of a site is estimated."""
    way = "pathwise" if site.density.score is None else "by the score function"
    return f"{site_of(site.name, site.distribution)} {way}"


def log_probabilities(run: Run, name: str) -> int:
    """Count the log-probabilities that each element of a site influences."""
    of_guide, of_model = run.reaches()
    pairs = [*zip(run.guide.values(), of_guide, strict=True), *zip(run.model.values(), of_model, strict=True)]
    return sum(
        site.density.log_prob.numel() // math.prod(plate.size for plate in reach[name])
        for site, reach in pairs
        if name in reach
    )


def warn_of_noise(site: Site, terms: int, others: Sequence[str] = ()) -> None:
    """Warn of what the score function costs where no plate tells elements apart.

    Args:
        site: the first that is scored outside every plate.
        terms: log-probabilities that it influences.
        others: names of further sites of which the same is true.
    """
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    likewise = f". The same is true of {', '.join(map(repr, others[:NAMED]))}{more}" if others else ""
    warnings.warn(
        f"{site_of(site.name, site.distribution)} has no pathwise gradient and stands outside every plate: its score "
        f"is multiplied with the sum of all {terms} log-probabilities that it influences, and its gradient varies "
        "with all of them; more particles or a distribution with rsample help, or a plate if its elements are "
        f"independent{likewise}",
        stacklevel=2,
    )


def warn_of_straight_through(site: Site) -> None:
    """Warn of a distribution whose values jump, and that claims a pathwise gradient all the same."""
    if "StraightThrough" in type(innermost(site.distribution)).__name__:
        warnings.warn(
            f"{site_of(site.name, site.distribution)} passes gradients straight through a step, and its gradient is "
            "biased; wrap it in NonReparameterized of zoo.inference.elbo for the score function's, which is not",
            stacklevel=2,
        )


def warn_of_plates(names: Iterable[str]) -> None:
    """Warn of plates that the model does not have: their elements are independent in the guide alone."""
    warnings.warn(
        f"the guide has plates that the model does not have: {quote_names(names)}; give both the same plates, by name",
        stacklevel=2,
    )


def warn_of_jumps(names: set[str]) -> None:
    """Warn of a pathwise gradient where a value decides what the program does."""
    warnings.warn(
        f"values of {quote_names(names)}, which have a pathwise gradient, steer the program (if, item(), an index): "
        "that gradient does not see what jumps where another way is taken; wrap such a distribution of the guide in "
        "NonReparameterized of zoo.inference.elbo",
        stacklevel=2,
    )
