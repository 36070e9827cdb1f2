from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

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
from zoo.inference.elbo._assertions import AssertAwareProvenance
from zoo.inference.elbo._densities import (
    Density,
    draw_value,
    guide_density,
    log_density,
    restore_gradients,
    visible_tensors,
)
from zoo.inference.elbo._messages import (
    describe_site,
    diagnose_value,
    innermost,
    shared_control_flow_error,
)
from zoo.inference.elbo._sites import PARTICLES, Plate, Run, Site
from zoo.inference.elbo._subsampling import SubsampleIndices, Subsamples, check_visible, guide_only_plates
from zoo.inference.elbo._validation.rsample_flags import check_flags, record_flags
from zoo.inference.elbo.nonreparameterized import NonReparameterized

Program = Callable[..., Any]
Values = Mapping[str, Tensor]
NO_VALUES: Values = {}


class ModelGuideCall(NamedTuple):
    """Model, guide and the arguments of both."""

    model: Program
    guide: Program
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


def trace_model_and_guide(
    call: ModelGuideCall,
    subsamples: Subsamples,
    values: Values = NO_VALUES,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    check_rsample_flags: bool = False,
) -> Run:
    """Run a guide and its model, and record each sample statement and what it was computed from.

    Indices of plates in ``subsamples`` are used again, and new ones added. ``values`` replace samples of the guide,
    except for point masses. ``around`` creates the context entered around each program.
    ``check_rsample_flags``: raise an error if a call of ``has_rsample_(False)`` has no effect.
    """
    for name, program in (("model", call.model), ("guide", call.guide)):
        if not callable(program):
            raise ValueError(f"the {name} must be a function or a module that samples, got {program!r}")
    if plates := get_plates():
        raise ValueError(
            f"the plate {plates[0].name!r} is open around the ELBO; open it in the model and in the guide instead"
        )
    provenance = AssertAwareProvenance()
    with torch.inference_mode(False), uncompiled, provenance:
        flags = record_flags() if check_rsample_flags else nullcontext(())
        with TraceMessenger(provenance, SubsampleIndices(subsamples), values) as guide, around(), flags as flagged:
            call.guide(*call.args, **call.kwargs)
        sites = guide.sites
        if check_rsample_flags:
            check_flags(flagged, {name: site.distribution for name, site in sites.items()})
        if isinstance(call.guide, GuideMessenger):  # it runs the model, so that observed sites were recorded
            sites = {name: site for name, site in sites.items() if not site.observed}
        indices = SubsampleIndices(subsamples, guide.indices.used)
        with TraceMessenger(provenance, indices, guide_sites=sites) as model, around():
            call.model(*call.args, **call.kwargs)
    check_visible(guide.indices, indices)
    only_in_guide = guide_only_plates(guide.indices, indices)
    return Run(sites, model.sites, provenance.control_dependencies, only_in_guide, provenance.only_asserted())


def trace_vectorized(
    call: ModelGuideCall,
    num_particles: int,
    max_plate_nesting: int,
    subsamples: Subsamples,
    check_rsample_flags: bool = False,
) -> Run:
    """Run a guide and its model once for all particles, in a plate to the left of ``max_plate_nesting`` dimensions."""
    plate = partial(pyro.plate, PARTICLES, num_particles, dim=-1 - max_plate_nesting)
    run = trace_model_and_guide(call, subsamples, around=plate, check_rsample_flags=check_rsample_flags)
    check_control_flow(run)
    return run


def check_control_flow(run: Run) -> None:
    """Raise an error if values determine the control flow of a vectorized run."""
    if run.control_dependencies:
        only_asserted = run.asserted.keys() >= run.control_dependencies
        location = next(iter(run.asserted.values())) if only_asserted else None
        raise ValueError(shared_control_flow_error(f"the values of {quote_names(run.control_dependencies)}", location))


class TraceMessenger(Messenger):
    """Records the sample statements of a guide, or of a model if the sites of the guide are given."""

    def __init__(
        self,
        provenance: Provenance,
        indices: SubsampleIndices,
        values: Values = NO_VALUES,
        guide_sites: Mapping[str, Site] | None = None,
    ):
        super().__init__()
        self.provenance = provenance
        self.indices = indices
        self.values = values
        self.guide_sites = guide_sites
        self.sites: dict[str, Site] = {}

    def _pyro_sample(self, message: dict[str, Any]) -> None:
        name, distribution = message["name"], message["fn"]
        if isinstance(distribution, _Subsample):
            self._subsample(name, distribution, message)
            return
        if not torch.is_grad_enabled():
            distribution = message["fn"] = self._enable_gradients(distribution, drawn=message["value"] is None)
        if message["done"] or message["value"] is not None:
            return
        if self.guide_sites is not None and name in self.guide_sites:
            message["value"] = _bypass_transform_cache(self.guide_sites[name])
        elif name in self.values and not isinstance(innermost(distribution), Delta):  # Deltas follow from other sites
            message["value"] = self.values[name]
        else:
            message["value"] = self._draw(name, distribution)
        message["done"] = True

    def _pyro_post_sample(self, message: dict[str, Any]) -> None:
        name, infer, distribution = message["name"], message["infer"], message["fn"]
        if isinstance(distribution, _Subsample) or infer.get("_do_not_trace") or infer.get("_deterministic"):
            return
        if name in self.sites:
            raise ValueError(f"site {name!r} is sampled twice; each pyro.sample needs a unique name")
        self.indices.enter(message["cond_indep_stack"])
        self.sites[name] = self._make_site(name, distribution, message)

    def _subsample(self, name: str, distribution: _Subsample, message: dict[str, Any]) -> None:
        found = self.indices.find(name, distribution, explicit=message["value"])
        message["value"] = draw(name, distribution) if found is None else found
        message["done"] = True
        self.indices.record(name, distribution, message["value"])

    def _enable_gradients(self, distribution: Distribution, drawn: bool) -> Distribution:
        """Return a distribution with gradients, though they are disabled at the sample statement."""
        with _enable_grad():
            restored = restore_gradients(distribution)
        # A value drawn while gradients are disabled has no pathwise gradient, so the guide needs its score.
        scored = drawn and self.guide_sites is None and restored.has_rsample
        return NonReparameterized(restored) if scored else restored

    def _draw(self, name: str, distribution: Distribution) -> Tensor:
        """Draw a value; control flow inside the sampler affects this value only."""
        with _enable_grad(), self._as_one_operation(distribution), self.provenance.ignoring_control_flow:
            return draw(name, distribution)

    @contextmanager
    def _as_one_operation(self, distribution: Distribution) -> Iterator[Names]:
        """Treat a distribution as one operation: pause tracking, and yield the samples its tensors were computed from.

        If not all of its tensors are visible, tracking is not paused, and no names are yielded.
        """
        tensors = visible_tensors(distribution)
        if tensors is None:
            yield NO_NAMES
            return
        names = self.provenance.names_of(tuple(tensors))
        with self.provenance.paused():
            yield names
        if names:
            known = {id(tensor) for tensor in tensors}
            for tensor in visible_tensors(distribution) or ():
                if id(tensor) not in known:  # computed now, and cached by the distribution for later use
                    self.provenance.set_names(tensor, names)

    def _make_site(self, name: str, distribution: Distribution, message: dict[str, Any]) -> Site:
        value, scale, mask, observed = (message[key] for key in ("value", "scale", "mask", "is_observed"))
        grad_enabled, provenance = torch.is_grad_enabled(), self.provenance
        if not isinstance(value, Tensor):
            raise ValueError(f"{describe_site(name, distribution)} must have a tensor as value, got {value!r}")
        with _enable_grad(), self._as_one_operation(distribution) as names:
            density = self._density(name, distribution, value, observed)
        control_dependencies = provenance.control_dependencies  # including those of the density itself
        parents = names | provenance.names_of((density.log_prob, value, scale, mask)) | control_dependencies
        if mask is not None or isinstance(scale, Tensor) or scale != 1:
            with _enable_grad(), provenance.paused():
                density = _scale_and_mask(name, distribution, density, scale, mask)
        if self.guide_sites is None and not observed:
            provenance.set_names(value, {name})
            parents |= {name}
        return Site(
            name,
            distribution,
            value,
            density,
            frozenset(Plate(f.name, f.dim, int(f.size)) for f in message["cond_indep_stack"] if f.vectorized),
            parents,
            control_dependencies,
            observed,
            scale,
            message["infer"],
            grad_enabled,
            uses_no_grad_view=provenance.lost_gradients
            and provenance.uses_no_grad_view(visible_tensors(distribution) or [density.log_prob]),
        )

    def _density(self, name: str, distribution: Distribution, value: Tensor, observed: bool) -> Density:
        try:
            if self.guide_sites is None:
                return guide_density(distribution, value)
            return Density(log_density(distribution, value))
        except (ValueError, KeyError, NotImplementedError) as error:
            problem = f"{describe_site(name, distribution)} has no log-probability: {error}"
            if name in (self.guide_sites or ()):
                problem += "; guide and model need plates of the same names and sizes, and the same to_event"
            raise ValueError(diagnose_value(name, distribution, value, observed) or problem) from error


def _enable_grad() -> AbstractContextManager[Any]:
    """Enable gradients for the value and density of a site, whatever the grad mode of the sample statement."""
    return nullcontext() if torch.is_grad_enabled() else torch.inference_mode(False)


def _bypass_transform_cache(site: Site) -> Tensor:
    """Return the value of a site for the model.

    If it has a score, it is cloned, so that no transform's cache contains it.
    A transform shared by the distributions of guide and model may have cached the value's pre-image without gradient.
    """
    return site.value if site.density.score is None else site.value.clone()


def _scale_and_mask(
    name: str, distribution: Distribution, density: Density, scale: float | Tensor, mask: bool | Tensor | None
) -> Density:
    """Scale and mask the log-probability and the entropy, but not the score."""
    log_prob, score, entropy = density
    tensors = {what: x for what, x in (("mask", mask), ("scale", scale)) if isinstance(x, Tensor)}
    if not all(_broadcasts_to(x.shape, log_prob.shape) for x in tensors.values()):
        shapes = " and ".join(f"its {what} has shape {tuple(x.shape)}" for what, x in tensors.items())
        raise ValueError(
            f"the log-probability of {describe_site(name, distribution)} has batch shape {tuple(log_prob.shape)}, but "
            f"{shapes}; a mask (obs_mask too) and a scale must broadcast to the batch shape"
        )
    entropy = None if entropy is None else scale_and_mask(entropy, scale, mask)
    return Density(scale_and_mask(log_prob, scale, mask), score, entropy)


def _broadcasts_to(shape: torch.Size, target: torch.Size) -> bool:
    leading = len(shape) - len(target)
    if leading > 0 and any(size != 1 for size in shape[:leading]):
        return False
    pairs = zip(reversed(shape), reversed(target), strict=False)
    return all(size in (1, other) for size, other in pairs)


def draw(name: str, distribution: Distribution | _Subsample) -> Tensor:
    """Draw the value of a site. All random numbers are drawn here; tests replace it to choose the values by name."""
    return draw_value(distribution)
