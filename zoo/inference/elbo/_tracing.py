from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions import Delta
from pyro.distributions.util import scale_and_mask
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import get_plates
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor
from torch.distributions import Distribution

from zoo.gradients._compilation import uncompiled
from zoo.gradients.graphs._provenance.names import NO_NAMES, Names, quote_names
from zoo.gradients.graphs._provenance.provenance import Provenance
from zoo.inference.elbo._assertions import AssertAwareProvenance, assert_that_raised
from zoo.inference.elbo._densities import Density, draw_value, guide_density, log_density, tensors_shown
from zoo.inference.elbo._dependencies import Plate
from zoo.inference.elbo._messages import innermost, no_log_probability, site_of, steered_together, what_is_wrong
from zoo.inference.elbo._no_grad_views import with_gradients_restored
from zoo.inference.elbo._sites import PARTICLES, Run, Site
from zoo.inference.elbo._subsampling import SubsampleIndices, Subsamples, check_seen, plates_of_guide_alone
from zoo.inference.elbo.nonreparameterized import NonReparameterized, check_flags, flags_noted

Program = Callable[..., Any]
Values = Mapping[str, Tensor]
NO_VALUES: Values = {}


def record(
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    drawn: Subsamples,
    values: Values = NO_VALUES,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    watch_flags: bool = False,
) -> Run:
    """Run a guide and its model, and note every sample statement and what it was computed from.

    Args:
        model: runs on the values that the guide draws.
        guide: draws.
        args: of both.
        kwargs: of both.
        drawn: subsamples that plates drew before and are to use again; those that they draw now are added.
        values: that sites of the guide are to have, in place of drawing them; but for those of point masses.
        around: makes what is entered around each program.
        watch_flags: raise an error if the guide calls ``has_rsample_(False)`` in vain.

    Raises:
        ValueError: a name is used twice, a log-probability cannot be computed, a plate is open around both programs, or
            has other elements in the model than in the guide.
    """
    if plates := get_plates():
        raise ValueError(
            f"the plate {plates[0].name!r} is open around the ELBO; open it in the model and in the guide instead"
        )
    provenance = AssertAwareProvenance()
    with torch.inference_mode(False), uncompiled, provenance:
        watching = flags_noted() if watch_flags else nullcontext(())
        with Recorder(provenance, SubsampleIndices(drawn), values) as of_guide, around(), watching as flagged:
            guide(*args, **kwargs)
        sites = of_guide.sites
        check_flags(flagged, {name: site.distribution for name, site in sites.items()})
        if isinstance(guide, GuideMessenger):  # which runs the model, data and all
            sites = {name: site for name, site in sites.items() if not site.observed}
        indices = SubsampleIndices(drawn, of_guide.indices.used)
        with Recorder(provenance, indices, given=sites) as of_model, around():
            model(*args, **kwargs)
    check_seen(of_guide.indices, indices)
    return Run(
        sites,
        of_model.sites,
        provenance.escaped,
        plates_of_guide_alone(of_guide.indices, indices),
        provenance.only_asserted(),
    )


def record_at_once(
    particles: int,
    dim: int,
    model: Program,
    guide: Program,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    drawn: Subsamples,
    watch_flags: bool = False,
) -> Run:
    """Run a guide and its model once for all particles, in a plate around both.

    Args:
        particles: how many there are.
        dim: of the plate, counted from the right.
        model: see ``record``, as for the rest.
        guide: draws.
        args: of both.
        kwargs: of both.
        drawn: subsamples.
        watch_flags: see there.

    Raises:
        ValueError: as ``record``; or values steer the program, and particles would have to go different ways.
    """
    try:
        plate = partial(pyro.plate, PARTICLES, particles, dim=-dim)
        run = record(model, guide, args, kwargs, drawn, around=plate, watch_flags=watch_flags)
    except RuntimeError as error:  # torch does not turn several values into one number or one bool
        if "Tensor with more than one value" in str(error) or "cannot be converted to Scalar" in str(error):
            raise ValueError(steered_together("values", assert_that_raised(error.__traceback__))) from error
        raise
    check_not_steered(run)
    return run


def check_not_steered(run: Run) -> None:
    """Raise an error if values steered a program that is to run for all particles at once.

    Raises:
        ValueError: they did. The sentence names the assert statement if it was one.
    """
    if run.steered_by:
        where = next(iter(run.asserted.values())) if run.asserted.keys() >= run.steered_by else None
        raise ValueError(steered_together(f"the values of {quote_names(run.steered_by)}", where))


class Recorder(Messenger):
    """Notes the sample statements of a program while it is entered.

    Args:
        provenance: is entered too.
        indices: subsample indices of the plates.
        values: that sites are to have, in place of drawing them.
        given: what the guide sampled, if the program is the model.
    """

    def __init__(
        self,
        provenance: Provenance,
        indices: SubsampleIndices,
        values: Values = NO_VALUES,
        given: Mapping[str, Site] | None = None,
    ):
        super().__init__()
        self.provenance = provenance
        self.indices = indices
        self.values = values
        self.given = given
        self.sites: dict[str, Site] = {}

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        name, distribution = message["name"], message["fn"]
        if isinstance(distribution, _Subsample):
            self._subsample(name, distribution, message)
            return
        if not torch.is_grad_enabled():
            distribution = message["fn"] = self._without_grad_mode(distribution, drawn=message["value"] is None)
        if message["done"] or message["value"] is not None:
            return
        if self.given is not None and name in self.given:
            message["value"] = unremembered(self.given[name])
        elif name in self.values and not isinstance(innermost(distribution), Delta):  # which follows from the others
            message["value"] = self.values[name]
        else:
            message["value"] = self._draw(name, distribution)
        message["done"] = True

    def _pyro_post_sample(self, message: dict[str, Any]) -> None:
        name, infer, distribution = message["name"], message["infer"], message["fn"]
        if isinstance(distribution, _Subsample) or infer.get("_do_not_trace") or infer.get("_deterministic"):
            return
        if name in self.sites:
            raise ValueError(f"site {name!r} is sampled twice; each pyro.sample needs a name of its own")
        self.indices.notice(message["cond_indep_stack"])
        self.sites[name] = self._site(name, distribution, message)

    def _subsample(self, name: str, distribution: _Subsample, message: dict[str, Any]) -> None:
        found = self.indices.find(name, distribution, explicit=message["value"])
        message["value"] = draw(name, distribution) if found is None else found
        message["done"] = True
        self.indices.keep(name, distribution, message["value"])

    def _without_grad_mode(self, distribution: Distribution, drawn: bool) -> Distribution:
        """Return a distribution that has its gradient though gradients are off at the sample statement."""
        with with_gradients():
            restored = with_gradients_restored(distribution)
        # No path leads out of a block without gradients, so that the score has to see all that a guide draws there.
        scored = drawn and self.given is None and restored.has_rsample
        return NonReparameterized(restored) if scored else restored

    def _draw(self, name: str, distribution: Distribution) -> Tensor:
        """Draw a value; what the sampler itself looks at steers that value alone."""
        with with_gradients(), self._followed_as_one(distribution), self.provenance.escapes_suppressed:
            return draw(name, distribution)

    @contextmanager
    def _followed_as_one(self, distribution: Distribution) -> Iterator[Names]:
        """Pause the provenance if it is known what a distribution is computed from; give the names of that."""
        shown = tensors_shown(distribution)
        if shown is None:
            yield NO_NAMES
            return
        names, seen = self.provenance.of(shown), {id(tensor) for tensor in shown}
        with self.provenance.paused():
            yield names
        for tensor in tensors_shown(distribution) or ():
            if names and id(tensor) not in seen:  # computed now, and kept by the distribution for others to use
                self.provenance.mark(tensor, names)

    def _site(self, name: str, distribution: Distribution, message: dict[str, Any]) -> Site:
        value, scale, mask, observed = (message[key] for key in ("value", "scale", "mask", "is_observed"))
        grad_enabled = torch.is_grad_enabled()
        if not isinstance(value, Tensor):
            raise ValueError(f"{site_of(name, distribution)} must have a tensor for a value, got {value!r}")
        with with_gradients(), self._followed_as_one(distribution) as names:
            density = self._density(name, distribution, value, observed)
        steered_by = self.provenance.escaped  # also by what the density itself looked at
        parents = names | self.provenance.of([density.log_prob, value, scale, mask]) | steered_by
        with with_gradients(), self.provenance.paused():
            density = self._weighed(name, distribution, density, scale, mask)
        if self.given is None and not observed:
            self.provenance.mark(value, {name})
            parents |= {name}
        plates = frozenset(Plate(f.name, f.dim, int(f.size)) for f in message["cond_indep_stack"] if f.vectorized)
        infer = message["infer"]
        cut = self.provenance.lost_gradients and self.provenance.uses_no_grad_view(
            tensors_shown(distribution) or [density.log_prob]
        )
        of_program = (observed, scale, infer, grad_enabled, cut)
        return Site(name, distribution, value, density, plates, parents, steered_by, *of_program)

    def _weighed(
        self, name: str, distribution: Distribution, density: Density, scale: float | Tensor, mask: bool | Tensor | None
    ) -> Density:
        batch, found = density.log_prob.shape, None
        try:
            found = weighed(density, scale, mask)
        except RuntimeError as error:
            if "must match the size" not in str(error):
                raise
        if found is None or found.log_prob.numel() > density.log_prob.numel():
            shapes = " and ".join(
                f"its {what} has shape {tuple(x.shape)}"
                for what, x in (("mask", mask), ("scale", scale))
                if isinstance(x, Tensor)
            )
            raise ValueError(
                f"the log-probability of {site_of(name, distribution)} has batch shape {tuple(batch)}, but {shapes}; a "
                "mask (obs_mask too) and a scale must broadcast to the batch shape"
            )
        return found

    def _density(self, name: str, distribution: Distribution, value: Tensor, observed: bool) -> Density:
        try:
            if self.given is None:
                return guide_density(distribution, value)
            return Density(log_density(distribution, value))
        except (ValueError, KeyError, NotImplementedError) as error:
            wrong = what_is_wrong(name, distribution, value, observed)
            drawn = self.given is not None and name in self.given
            raise ValueError(wrong or no_log_probability(name, distribution, error, drawn)) from error


def with_gradients() -> AbstractContextManager[Any]:
    """Turn gradients on for a site's value and density, whatever is on around the sample statement."""
    return nullcontext() if torch.is_grad_enabled() else torch.inference_mode(False)


def unremembered(site: Site) -> Tensor:
    """Value of a site, for the model.

    A transform that the guide's distribution shares with the model's may remember what it made this value of, and would
    find no gradient for what was drawn without one.
    """
    return site.value if site.density.score is None else site.value.clone()


def weighed(density: Density, scale: float | Tensor, mask: bool | Tensor | None) -> Density:
    """Scale and mask the parts that the ELBO adds up. The score stays as it is."""
    if mask is None and not isinstance(scale, Tensor) and scale == 1:
        return density
    log_prob, score, entropy = density
    return Density(
        scale_and_mask(log_prob, scale, mask), score, None if entropy is None else scale_and_mask(entropy, scale, mask)
    )


def draw(name: str, distribution: Distribution | _Subsample) -> Tensor:
    """Draw a value. All that is random enters here."""
    return draw_value(distribution)
