import math
from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.enum import get_importance_trace
from pyro.poutine import Trace
from torch import Tensor, nn

from zoo._constraints import COUNT, Constraint, check_constraints
from zoo.gradients import Reinforce, RunningStd
from zoo.gradients._steps import end_step, in_backward
from zoo.gradients.estimators import VIMCOBaseline
from zoo.gradients.graphs._provenance.torch_internals import is_vmapped
from zoo.inference.elbo._baselines import BaselineLike
from zoo.inference.elbo._estimators import Estimators
from zoo.inference.elbo._objective import (
    Objective,
    elbo_objective,
    flatten_advantages,
    importance_bound,
    importance_objective,
    sum_terms,
)
from zoo.inference.elbo._sites import Run, plate_nesting
from zoo.inference.elbo._subsampling import Subsamples
from zoo.inference.elbo._tracing import ModelGuideCall, Program, trace_model_and_guide, trace_vectorized
from zoo.inference.elbo._validation.validator import Validator

_BOOLEAN = Constraint("True or False", lambda x: isinstance(x, bool))
_CONSTRAINTS = {
    "num_particles": COUNT,
    "vectorize_particles": _BOOLEAN,
    "scale": Constraint("a RunningStd or None", lambda x: isinstance(x, RunningStd | None)),
    "bound": Constraint("'elbo' or 'iwae'", lambda x: x in ("elbo", "iwae")),
    "max_plate_nesting": Constraint(
        "a whole number of 0 or more, or infinite", lambda x: x == math.inf or (x >= 0 and x == int(x))
    ),
    "validate": _BOOLEAN,
}


class BlackBoxELBO(ELBO, nn.Module):
    """Black-box variational inference for Pyro models and guides; a replacement for ``pyro.infer.Trace_ELBO``.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014. Sites of the guide with ``rsample`` use the
    pathwise gradient. All others use ``zoo.gradients.Reinforce`` with a baseline; their learning signal is the sum of
    the terms of the ELBO that they influence, determined from torch functions, Python control flow and plates. As in
    Pyro, elements of a plate must be independent given what is outside the plate. The pathwise gradient is biased if
    the program is discontinuous in the value (``torch.where``, rounding): wrap such a distribution in
    ``NonReparameterized``. The grad mode around a sample statement has no effect.

    The baselines are submodules: ``elbo(model, guide)`` has their networks among its parameters, and ``SVI`` trains
    them, under the names ``baselines.SITE.…`` in Pyro's parameter store. They learn in train mode, in each call that
    computes a gradient.

    Args:
        num_particles: number of samples of the guide in each estimate.
        vectorize_particles: draw all particles in one run, in a plate around model and guide. Faster, for programs
            whose control flow does not depend on values, and that are independent across particles.
        baseline: ``"none"``, ``"moving_average"``, ``"leave_one_out"`` (over particles), ``"learned"``, sums of these
            (see ``zoo.gradients.BASELINES``), ``"optimal"`` (the paper's control variate), a number, or a ``Baseline``,
            which is copied for each site; or a dictionary of these by names of sites. None: as specified by a site of
            the guide in ``infer={"baseline": {...}}``, with the options ``use_decaying_avg_baseline``,
            ``baseline_beta``, ``nn_baseline``, ``nn_baseline_input`` and ``baseline_value`` of
            ``pyro.infer.TraceGraph_ELBO``; otherwise leave-one-out with several particles, a moving average with one.
        scale: divide the whole loss, including the gradient of the model, by the running standard deviation of all
            learning signals. It is copied.
        bound: ``"elbo"``, or ``"iwae"`` for the importance-weighted bound, with the VIMCO baseline.
        max_plate_nesting: as in Pyro; by default determined in a first run if particles are vectorized, including batch
            dimensions that are not plates.
        retain_graph: keep the graph after ``loss_and_grads``.
        validate: check in each step that model and guide match, that the gradient is correct, and that it is finite;
            expensive checks run at runs 1, 2, 4, 8, … and for new sites or options. False: no checks, and distributions
            do not validate their arguments either (``pyro.validation_enabled``), which saves a tenth of the time.
            Gradients of correct programs are the same.

    Raises:
        ValueError: an option is invalid, or there are too few particles for the baseline. In a step: model and guide do
            not match, or the gradient would be wrong.
        FloatingPointError: in a step: the bound, or a gradient after ``loss_and_grads``, is not finite.

    Example:
        >>> import pyro
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Bernoulli(0.5))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Bernoulli(logits=x * pyro.param("slope", torch.tensor(0.0))))
        >>> svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), BlackBoxELBO(num_particles=2))
        >>> svi.step(torch.ones(10)) > 0
        True
    """

    def __init__(
        self,
        num_particles: int = 1,
        vectorize_particles: bool = False,
        baseline: BaselineLike | Mapping[str, BaselineLike] | None = None,
        scale: RunningStd | None = None,
        bound: Literal["elbo", "iwae"] = "elbo",
        max_plate_nesting: float = math.inf,
        retain_graph: bool | None = None,
        validate: bool = True,
    ):
        nn.Module.__init__(self)
        check_constraints(locals(), _CONSTRAINTS)
        if bound == "iwae" and num_particles < 2:
            raise ValueError(
                "bound='iwae' is the ELBO with one particle; set num_particles=2 or more, or use bound='elbo'"
            )
        if bound == "iwae" and baseline is not None:
            raise ValueError("bound='iwae' uses VIMCO's own leave-one-out baseline; omit baseline=")
        ELBO.__init__(self, num_particles, max_plate_nesting, retain_graph=retain_graph)
        self.vectorize_particles = vectorize_particles  # not passed to Pyro, which would count the particles' plate
        self.estimators = Estimators(baseline, num_particles)
        self.scale = deepcopy(scale)
        self.vimco = Reinforce(VIMCOBaseline(dim=0), maximize=True) if bound == "iwae" else None
        self.validator = Validator(validate)

    def loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Estimate the negative bound without learning from it."""
        with torch.no_grad():
            runs = self._trace(ModelGuideCall(model, guide, args, kwargs), self.num_particles)
            if self.vimco is None:
                log_p, log_q, _ = sum_terms(runs, None)
                bound = (log_p - log_q) / self.num_particles
            else:
                bound = importance_bound(runs, self._is_vectorized(self.num_particles)).sum()
        self.validator.check_finite(bound, bound, runs)
        return -bound.item()

    def differentiable_loss(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> Tensor:
        """Estimate the negative bound, with its gradient.

        If all sites are pathwise, the second derivative is that of the estimate; otherwise it raises an error. The
        transforms of ``torch.func`` apply, except for ``vmap``.
        """
        try:
            objective = self._estimate(ModelGuideCall(model, guide, args, kwargs))
        except RuntimeError as error:
            if not is_vmapped():
                raise
            raise ValueError(
                "the ELBO does not support torch.func.vmap, because it checks that values are finite and in their "
                "support; use a loop, or vectorize_particles=True for several particles"
            ) from error
        return objective.loss - objective.loss.detach() - objective.bound

    def loss_and_grads(self, model: Program, guide: Program, *args: Any, **kwargs: Any) -> float:
        """Estimate the negative bound, and add its gradient to that of the parameters."""
        if not torch.is_grad_enabled():
            raise ValueError(
                "loss_and_grads is called while gradients are disabled (torch.no_grad or inference_mode), so nothing "
                "would be trained; call it outside, or loss() to evaluate"
            )
        call = ModelGuideCall(model, guide, args, kwargs)
        params = poutine.trace(param_only=True) if self.validator.enabled else nullcontext()
        with params, self.estimators.in_parameter_store():
            objective = self._estimate(call)
        if objective.loss.requires_grad:
            objective.loss.backward(retain_graph=self.retain_graph)
            self.validator.check_gradients(params, lambda: self._trace(call, 1))
        return -objective.bound.item()

    def _estimate(self, call: ModelGuideCall) -> Objective:
        """Estimate the bound and its gradient, and train the baselines."""
        self.validator.step += 1
        if not in_backward():
            end_step(self)  # particles of another call are independent of the baselines trained here
        num_particles = self.num_particles + self.estimators.num_extra_samples
        runs, vectorized = self._trace(call, num_particles), self._is_vectorized(num_particles)
        if self.vimco is None:
            objective = elbo_objective(runs, self.estimators, self.num_particles, vectorized)
        else:
            objective = importance_objective(runs, self.vimco, vectorized)
        if self.scale is not None and objective.advantages:
            objective = self._divide_by_scale(self.scale, objective)
        self.validator.check_finite(objective.bound, objective.loss, runs)
        return objective

    def _trace(self, call: ModelGuideCall, num_particles: int) -> list[Run]:
        """Run guide and model for each particle, or once for all."""
        subsamples: Subsamples = {}
        nesting = self._particle_nesting(call, subsamples) if self._is_vectorized(num_particles) else None

        def trace_runs(check_rsample_flags: bool) -> list[Run]:
            if nesting is not None:
                return [trace_vectorized(call, num_particles, nesting, subsamples, check_rsample_flags)]
            return [
                trace_model_and_guide(call, subsamples, check_rsample_flags=check_rsample_flags)
                for _ in range(num_particles)
            ]

        return self.validator.checked_runs(trace_runs, call, num_particles, nesting, subsamples)

    def _particle_nesting(self, call: ModelGuideCall, subsamples: Subsamples) -> int:
        """Return the number of dimensions to the right of vectorized particles."""
        if self.max_plate_nesting == math.inf:
            with torch.no_grad(), self.validator.distribution_validation():
                run = trace_model_and_guide(call, subsamples, check_rsample_flags=self.validator.enabled)
                self.max_plate_nesting = plate_nesting(run)
        return int(self.max_plate_nesting)

    def _is_vectorized(self, num_particles: int) -> bool:
        return self.vectorize_particles and num_particles > 1

    def _divide_by_scale(self, scale: RunningStd, objective: Objective) -> Objective:
        """Divide the whole loss by the running scale of the learning signals.

        A parameter may have a pathwise and a score part, or be shared by sites: if the parts were divided by different
        numbers, the stationary points would change.
        """
        advantages = flatten_advantages(objective)
        scale.to(advantages.device)
        loss = objective.loss / scale.value
        if scale.training:
            scale.update(advantages)
        return objective._replace(loss=loss)

    def _get_trace(self, model: Program, guide: Program, args: Any, kwargs: Any) -> tuple[Trace, Trace]:
        return get_importance_trace("flat", self.max_plate_nesting, model, guide, args, kwargs)
