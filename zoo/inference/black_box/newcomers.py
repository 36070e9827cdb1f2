import logging
import math
import warnings

from zoo.gradients.graphs.provenance import listed
from zoo.inference.black_box.checks import check_shapes, check_support
from zoo.inference.black_box.recording import PARTICLES, Run, Site
from zoo.inference.black_box.sentences import site_of

logger = logging.getLogger(__name__)


class Newcomers:
    """Looks at each site of a guide when it is first seen, and says how its gradient is estimated."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.jumping: set[str] = set()

    def greet(self, run: Run) -> None:
        """Check what is new in a run, and tell of it.

        Raises:
            ValueError: guide and model do not agree on what a latent variable is, or it has no right gradient.
        """
        new = [site for site in run.guide.values() if site.name not in self.known and not site.observed]
        for site in new:
            check_support(site)
            if site.name in run.model:
                check_shapes(site, run.model[site.name])
            if site.density.score is not None and not {p for p in site.plates if p.name != PARTICLES}:
                warn_of_noise(site, log_probabilities(run, site.name))
        if new:
            self.known |= {site.name for site in new}
            logger.info("gradient of the ELBO: %s", "; ".join(how(site) for site in new))
        jumps = {name for name in run.steered_by if run.guide[name].density.score is None} - self.jumping
        if jumps:
            self.jumping |= jumps
            warn_of_jumps(jumps)


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


def warn_of_noise(site: Site, terms: int) -> None:
    """Warn of what the score function costs where no plate tells elements apart."""
    warnings.warn(
        f"{site_of(site.name, site.distribution)} has no pathwise gradient and stands outside every plate: its score "
        f"is multiplied with the sum of all {terms} log-probabilities that it influences, and its gradient varies "
        "with all of them; more particles or a distribution with rsample help, or a plate if its elements are "
        "independent",
        stacklevel=2,
    )


def warn_of_jumps(names: set[str]) -> None:
    """Warn of a pathwise gradient where a value decides what the program does."""
    warnings.warn(
        f"values of {listed(names)}, which have a pathwise gradient, steer the program (if, item(), an index): that "
        "gradient does not see what jumps where another way is taken; take has_rsample_(False) for such a "
        "distribution of the guide",
        stacklevel=2,
    )
