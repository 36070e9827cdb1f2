import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast
from urllib.parse import quote, unquote

import pyro
import torch
from pyro.params import param_with_module_name
from pyro.poutine.runtime import effectful
from torch import Tensor, nn

from zoo.gradients import Baseline, LearnedBaseline, Reinforce, ReinforceOutput
from zoo.gradients.control_variates import ControlVariate
from zoo.gradients.graphs._provenance.names import quote_names
from zoo.inference.elbo._baselines import (
    BaselineLike,
    SiteBaseline,
    has_part,
    make_site_baseline,
    missing_input,
    site_prediction,
)
from zoo.inference.elbo._control_variate import control_variate_output
from zoo.inference.elbo._downstream_costs import ScoreFunctionTerm, stack_parts

PREFIX = "site "


class Estimators(nn.Module):
    """A ``Reinforce`` for each site of a guide that has a score, created when the site is first seen.

    The baseline is copied for each site, unless it is a dictionary by names of sites.
    """

    def __init__(self, baseline: BaselineLike | Mapping[str, BaselineLike] | None, num_particles: int):
        super().__init__()
        self.by_site = isinstance(baseline, Mapping)
        self.baselines = dict(baseline) if isinstance(baseline, Mapping) else {"": baseline}
        self.num_particles = num_particles
        self.sites = nn.ModuleDict()
        self.with_parameters: list[str] = []
        """Names of the sites whose baselines have parameters."""
        self.registers_parameters = False
        self.register_load_state_dict_pre_hook(_create_estimators)
        placeholder = {"nn_baseline": nn.Identity()}
        for given in self.baselines.values():
            make_site_baseline(given, num_particles, placeholder)
        _check_separate(self.baselines)
        if names := [name for name in self.baselines if not isinstance(name, str)]:
            raise ValueError(f"the keys of baseline= must be names of sites, got {names[0]!r}")
        self.num_extra_samples = max(
            (each.num_extra_samples for each in self.baselines.values() if isinstance(each, ControlVariate)), default=0
        )
        """Number of further particles, used only to estimate the scaling of control variates."""

    def of(self, name: str, options: Mapping[str, Any] | None = None, device: torch.device | None = None) -> Reinforce:
        """Return the estimator of a site; the first call creates it, with the site's options ``infer["baseline"]``."""
        if (key := site_key(name)) not in self.sites:
            given = self.baselines.get(name if self.by_site else "")
            try:
                baseline = make_site_baseline(given, self.num_particles, options)
            except ValueError as error:
                raise ValueError(f"site {name!r}: {error}") from None
            is_shared = isinstance(given, Baseline) and not self.by_site
            reinforce = Reinforce(deepcopy(baseline) if is_shared else baseline, maximize=True)
            self.sites[key] = reinforce.to(device).train(self.training)
            if next(reinforce.parameters(), None) is not None:
                self.with_parameters.append(name)
                if self.registers_parameters:
                    _register_parameters(name, reinforce.baseline)
        return cast(Reinforce, self.sites[key])

    def check_names(self, known: Iterable[str]) -> None:
        """Raise an error if a baseline is specified for a site that the guide does not have, or that is pathwise."""
        if self.by_site and (unknown := set(self.baselines) - set(known)):
            raise ValueError(
                f"baseline= has a baseline for {quote_names(unknown)}, but the guide has no site of that name that "
                f"needs one; the sites that do are {quote_names(known)}"
            )

    @contextmanager
    def in_parameter_store(self) -> Iterator[None]:
        """Register the parameters of baselines in Pyro's parameter store, as ``baselines.SITE.net.weight``.

        ``pyro.infer.SVI`` and ``pyro.optim`` find them there.
        """
        self.registers_parameters = True
        try:
            for name in self.with_parameters:
                _register_parameters(name, self.of(name).baseline)
            yield
        finally:
            self.registers_parameters = False
        for name in self.with_parameters:
            for parameter in self.of(name).parameters():
                if parameter.requires_grad:
                    _register_param_in_trace(parameter)

    def forward(self, score: ScoreFunctionTerm, num_particles: int) -> ReinforceOutput:
        """Estimate a site's part of the gradient from the first ``num_particles``.

        The further particles are used only to estimate the scaling of a control variate.
        """
        site = score.site
        reinforce = self.of(site.name, site.infer.get("baseline"), score.signal.device)
        if isinstance(reinforce.baseline, ControlVariate):
            return control_variate_output(reinforce, reinforce.baseline, score, num_particles)
        is_site_baseline = has_part(reinforce.baseline, SiteBaseline)
        context = site_prediction(score, site.name)[:num_particles] if is_site_baseline else None
        score = score.first(num_particles)
        if has_part(reinforce.baseline, LearnedBaseline):
            context = _context(score, site.name)
        try:
            output: ReinforceOutput = reinforce(score.log_prob, score.signal, context, score.mask)
        except (ValueError, RuntimeError) as error:  # the latter from a network
            raise ValueError(f"the baseline of site {site.name!r}: {error}") from None
        return output


def _check_separate(given: Mapping[str, object]) -> None:
    """Raise an error if two sites share a baseline: at the second it would depend on the first site's sample."""
    owners: dict[nn.Module, str] = {}
    for name, baseline in given.items():
        for part in baseline.modules() if isinstance(baseline, Baseline) else ():
            if isinstance(part, Baseline) and part in owners:
                raise ValueError(
                    f"sites {owners[part]!r} and {name!r} have the same {type(part).__name__}; create a "
                    "separate one for each"
                )
            owners[part] = name


def _register_parameters(site: str, baseline: nn.Module) -> None:
    """Register a baseline's parameters in Pyro's parameter store, unless they are registered under another name.

    Existing values of the store under these names, as after ``pyro.get_param_store().load``, replace the parameters.
    """
    store = pyro.get_param_store()
    for path, parameter in list(baseline.named_parameters()):
        name = param_with_module_name(f"baselines.{site}", path)
        if not parameter.requires_grad or store.param_name(parameter) not in (None, name):
            continue
        if name not in store:
            store[name] = parameter
        stored = dict(store.named_parameters())[name]
        if stored.shape != parameter.shape:
            raise ValueError(
                f"the parameter store already has {name!r} of shape {tuple(stored.shape)}, but the baseline of site "
                f"{site!r} needs {tuple(parameter.shape)}; call pyro.clear_param_store(), or delete that entry"
            )
        if stored is not parameter:
            owner, _, attribute = path.rpartition(".")
            baseline.get_submodule(owner)._parameters[attribute] = stored  # type: ignore[assignment]


def _register_param_in_trace(parameter: nn.Parameter) -> None:
    """Send the message that ``pyro.param`` sends for a parameter of the store."""
    value = parameter.view_as(parameter)
    value.unconstrained = weakref.ref(parameter)  # type: ignore[attr-defined]

    def param() -> Tensor:
        return value

    effectful(param, type="param")(name=pyro.get_param_store().param_name(parameter))


def _context(score: ScoreFunctionTerm, name: str) -> Tensor:
    """Return the input of the networks of a site's baseline, ``(particles, *batch, features)``."""
    inputs = [site and (site.infer.get("baseline") or {}).get("nn_baseline_input") for site in score.sites]
    first = next((each for each in inputs if each is not None), None)
    if not isinstance(first, Tensor):
        raise ValueError(missing_input(name))
    shape = (*score.signal.shape[1:], first.shape[-1])
    try:
        if len(inputs) == 1:  # may be vectorized
            return first.expand(len(score.signal), *shape)
        return stack_parts(inputs, first.new_zeros(()).expand(shape))
    except RuntimeError:
        raise ValueError(
            f"the input of the baseline's network at site {name!r} has shape {tuple(first.shape)}, which does not fit "
            f"the batch {tuple(score.signal.shape[1:])} followed by features"
        ) from None


def site_key(name: str) -> str:
    """Return the key of a site in a ``ModuleDict``, which must not contain dots or equal an attribute."""
    return PREFIX + quote(name, safe=" ").replace(".", "%2E")


def _create_estimators(estimators: nn.Module, state: Mapping[str, Any], prefix: str, *_: Any) -> None:
    """Create the estimators of the sites in a state that is about to be loaded."""
    start = f"{prefix}sites.{PREFIX}"
    for key in state:
        if key.startswith(start):
            cast(Estimators, estimators).of(unquote(key.removeprefix(start).split(".")[0]))
