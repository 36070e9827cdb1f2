from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.gradients.baselines import Baseline, make_baseline
from zoo.gradients.estimators.estimator import (
    Evaluation,
    GradientEstimate,
    GradientEstimator,
    LatentModel,
    bernoulli_sampler,
    sum_terms,
)
from zoo.gradients.reinforce import Reinforce
from zoo.gradients.running import RunningStd


def local_signals(sampled: Evaluation) -> list[Float[Tensor, "particles batch"]]:
    """Return the learning signal of each layer: the terms of the ELBO that depend on its units.

    ``l_i = log p(h_L) + Σ_{j≥i} [log p(h_{j-1} | h_j) - log q(h_j | h_{j-1})]`` with ``h_0 = x``, section 2.4 of Mnih &
    Gregor, "Neural variational inference and learning in belief networks", 2014. The other terms add only variance;
    ``l_1`` is the whole ELBO.

    Example:
        >>> prior, recognized = torch.full((1, 1), -1.0), torch.full((1, 1), -2.0)
        >>> pixels, middle = torch.full((1, 1), -70.0), torch.full((1, 1), -5.0)
        >>> sampled = Evaluation([], [recognized, recognized], [pixels, middle, prior])
        >>> [signal.item() for signal in local_signals(sampled)]
        [-72.0, -4.0]
    """
    signal, signals = sampled.log_joint[-1].detach(), []
    for log_p, log_q in zip(reversed(sampled.log_joint[:-1]), reversed(sampled.log_q), strict=True):
        signal = signal + (log_p - log_q).detach()
        signals.append(signal)
    return signals[::-1]


def elbo_objective(sampled: Evaluation, reinforce: Iterable[nn.Module], local: bool = True) -> GradientEstimate:
    """Return the losses of ``-ELBO = -E_q[log p(x, h) - log q(h | x)]``.

    The gradient of the model is ``-∇ log p(x, h)``, that of layer ``i`` of the inference network
    ``-(l_i - b_i) ∇ log q(h_i | h_{i-1})``. Mnih & Gregor, "Neural variational inference and learning in belief
    networks", 2014.

    Args:
        sampled: log-probabilities of samples of the inference network.
        reinforce: one ``Reinforce(maximize=True)`` per layer; signals are ``(particles, batch)``, the context is the
            layer's input.
        local: use the ``local_signals`` of each layer instead of the whole ELBO.

    Example:
        >>> log_q, log_p = torch.full((5, 3), -1.0, requires_grad=True), torch.full((5, 3), -2.0)
        >>> sampled = Evaluation([torch.zeros(3, 4)], [log_q], [log_p, log_p])
        >>> elbo_objective(sampled, [Reinforce(maximize=True)]).bound
        tensor([-3., -3., -3.])
    """
    signals = local_signals(sampled)
    elbo = signals[0]
    outs = [
        estimator(log_q, signal if local else elbo, inputs.expand(*log_q.shape, -1))
        for estimator, log_q, signal, inputs in zip(reinforce, sampled.log_q, signals, sampled.inputs, strict=True)
    ]
    return GradientEstimate(
        pathwise=-sum_terms(sampled.log_joint).mean(),
        score=torch.stack([out.loss.mean() for out in outs]).sum(),
        baseline=torch.stack([out.baseline_loss for out in outs]).sum(),
        bound=elbo.mean(0),
        reinforce=outs,
    )


class LayerwiseReinforce(GradientEstimator):
    """REINFORCE with a baseline for each layer.

    With moving-average and learned baselines and ``scale=True`` it is NVIL.
    Mnih & Gregor, "Neural variational inference and learning in belief networks", 2014.

    Args:
        units: number of units per layer of the model.
        make_net: returns the network of a layer's learned baseline.
        baseline: see ``make_baseline``; its samples are the particles.
        decay: decay of running means.
        scale: divide the signals by their running standard deviation.
        local_signals: use only the terms of the ELBO that depend on a layer as its signal.

    Example:
        >>> LayerwiseReinforce([200], lambda layer: nn.Linear(784, 1), baseline="leave_one_out").min_particles
        2
    """

    needs = "signals"
    takes_baseline = True
    has_local_signals = True

    def __init__(
        self,
        units: Sequence[int],
        make_net: Callable[[int], nn.Module],
        *,
        baseline: str | None = None,
        decay: float = 0.9,
        scale: bool = False,
        local_signals: bool = True,
    ):
        super().__init__()
        self.local_signals = local_signals
        self.layers = nn.ModuleList(
            Reinforce(
                make_baseline(baseline or "none", make_net=partial(make_net, layer), sample_dim=0, decay=decay),
                RunningStd(decay) if scale else None,
                maximize=True,
            )
            for layer in range(len(units))
        )

    @property
    def min_particles(self) -> int:
        """2 if a baseline compares particles."""
        return 1 + any(part.compares_samples for part in self.modules() if isinstance(part, Baseline))

    def forward(self, model: LatentModel, num_particles: int) -> GradientEstimate:
        """Return the losses of the negative ELBO."""
        sampled = model.evaluate(bernoulli_sampler(model.noise(num_particles)))
        return elbo_objective(sampled, self.layers, self.local_signals)
