import copy
from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from jaxtyping import Float
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor, nn

from zoo.inference.programs.factors import BernoulliFactor, Factor


def normal_optimum(
    mean: Float[Tensor, " d"], precision: Float[Tensor, "d d"]
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Means and standard deviations of the factorised normal that is closest to ``N(mean, precision⁻¹)`` in KL(q ‖ p).

    The means are right, and the variances are the conditional ones, ``1 / Λ_ii``: Bishop, "Pattern recognition and
    machine learning", 2006, section 10.1.2.

    Raises:
        ValueError: the matrix is not positive definite.

    Example:
        >>> normal_optimum(torch.zeros(2), torch.tensor([[4.0, 1.0], [1.0, 1.0]]))
        (tensor([0., 0.]), tensor([0.5000, 1.0000]))
    """
    if torch.linalg.cholesky_ex(precision).info:
        raise ValueError("the precision matrix of a normal must be symmetric and positive definite")
    return mean, precision.diagonal().rsqrt()


def regression_optimum(
    x: Float[Tensor, "rows d"], y: Float[Tensor, " rows"], noise_sd: float, prior_sd: float
) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Factorised normal closest to the posterior of ``β ~ N(0, prior_sd)``, ``y ~ N(x β, noise_sd)``, noise known.

    Raises:
        ValueError: a standard deviation is not positive.

    Example:
        >>> regression_optimum(torch.ones(3, 1), torch.ones(3), noise_sd=1.0, prior_sd=1.0)
        (tensor([0.7500]), tensor([0.5000]))
    """
    if min(noise_sd, prior_sd) <= 0:
        raise ValueError(f"standard deviations must be positive, got {noise_sd} and {prior_sd}")
    precision = x.mT @ x / noise_sd**2 + torch.eye(x.shape[1], dtype=x.dtype, device=x.device) / prior_sd**2
    return normal_optimum(torch.linalg.solve(precision, x.mT @ y / noise_sd**2), precision)


def pathwise(guide: nn.Module) -> nn.Module:
    """Copy a guide that is made of factors, with reparametrised samplers in place of scored ones.

    Raises:
        ValueError: a factor is discrete, or there are none.
    """
    guide = copy.deepcopy(guide)
    factors = [module for module in guide.modules() if isinstance(module, Factor)]
    if not factors or any(isinstance(factor, BernoulliFactor) for factor in factors):
        raise ValueError("only a guide made of continuous factors of zoo.inference.programs has a pathwise version")
    for factor in factors:
        factor.pathwise = True
    return guide


def pathwise_optimum(
    model: Callable[..., object],
    guide: nn.Module,
    data: Sequence[Any],
    steps: int = 4000,
    particles: int = 16,
    learning_rate: float = 0.05,
    seed: int = 0,
) -> nn.Module:
    """Fit the same family by reparametrised gradients: the reference where the optimum has no closed form.

    Adam, with the learning rate falling to 0 along a cosine. The guide that is given stays as it is, and so does the
    global random state.

    Args:
        model: Pyro model.
        guide: made of factors; the copy starts from its parameters.
        data: arguments of both.
        steps: of Adam.
        particles: samples a step, drawn together.
        learning_rate: at the start.
        seed: of all draws.

    Raises:
        ValueError: the guide has no pathwise version, or ``steps`` or ``particles`` is not positive.

    Returns:
        The fitted guide, still pathwise.
    """
    if min(steps, particles) < 1:
        raise ValueError(f"steps and particles must be at least 1, got {steps} and {particles}")
    fitted = pathwise(guide)
    optimiser = torch.optim.Adam([p for p in fitted.parameters() if p.requires_grad], learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=True)
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        for _ in range(steps):
            optimiser.zero_grad()
            elbo.differentiable_loss(model, fitted, *data).backward()
            optimiser.step()
            schedule.step()
    return fitted


def guide_draws(guide: Callable[..., object], data: Sequence[Any], draws: int, seed: int) -> dict[str, Tensor]:
    """Draw all sites of a guide, each ``(draws, *shape)``; the global random state stays as it is."""
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope(), torch.no_grad():
        torch.manual_seed(seed)
        return Predictive(guide, num_samples=draws, parallel=True)(*data)
