import torch
from torch import Tensor

from zoo.gradients import Reinforce, ReinforceOutput
from zoo.gradients.control_variates import ControlVariate, optimal_scaling
from zoo.inference.elbo._distribution_parameters import parameters_of_all
from zoo.inference.elbo._downstream_costs import Score


def optimal_output(reinforce: Reinforce, baseline: ControlVariate, score: Score, particles: int) -> ReinforceOutput:
    """Estimate a site's part of the gradient with the control variate of black-box variational inference.

    The scaling is found for each parameter ``λ`` of the site's distribution, of each element of its batch. For it the
    log-probability is replaced by ``λ · ∇_λ log q``, which has the same gradient.

    Args:
        reinforce: of the site.
        baseline: what it has for one.
        score: of the site.
        particles: how many there are; those that follow are for the estimate of the scaling alone.
    """
    value, gradient = parameters_of_all(score.sites)
    log_prob, signal, mask = score.log_prob, score.signal, score.present
    if baseline.scaling == "parameter":
        log_prob, signal = value * gradient, like_parameters(signal, value)
        mask = None if mask is None else like_parameters(mask, value)
    else:
        gradient = by_factor(gradient, signal.shape)
    if baseline.num_extra_samples:
        separate = slice(particles, particles + baseline.num_extra_samples)
        context = optimal_scaling(gradient[separate], signal[separate]).expand(particles, *signal.shape[1:])
    else:
        context = gradient[:particles]
    mask = None if mask is None else mask[:particles]
    output: ReinforceOutput = reinforce(log_prob[:particles], signal[:particles], context, mask)
    return output


def like_parameters(x: Tensor, value: Tensor) -> Tensor:
    """Repeat what stands for each particle and plate for each parameter."""
    particles, *plates = x.shape
    batch = (1,) * (value.ndim - 2 - len(plates))
    return x.reshape(particles, *batch, *plates, 1).expand_as(value)


def by_factor(gradient: Tensor, shape: torch.Size) -> Tensor:
    """Arrange parameters behind the particles and plates, ``shape``; those of a batch that no plate declares too."""
    plates, batch = shape[1:], gradient.shape[1:-1]
    leading = len(batch) - len(plates)
    together = [1 + i for i in range(len(batch)) if i < leading or plates[i - leading] == 1]
    return gradient.movedim(together, list(range(-1 - len(together), -1))).reshape(*shape, -1)
