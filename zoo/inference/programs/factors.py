from collections.abc import Callable
from types import EllipsisType

import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.testing.fakes import NonreparameterizedBeta, NonreparameterizedGamma, NonreparameterizedNormal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn
from torch.nn.functional import softplus

Rows = Tensor | EllipsisType | tuple[int | slice | EllipsisType | Tensor, ...]

SD_FLOOR = 1e-3
MEAN_FLOOR = 1e-3
# A draw of Gamma(shape, 1) lies below the smallest float32, 1e-38, with probability of about 1e-38 ** shape.
SHAPE_FLOOR = 0.3


class NonreparameterizedLogNormal(dist.LogNormal):
    """LogNormal without a reparametrised sampler, as ``pyro.distributions.testing.fakes`` has them for others."""

    has_rsample = False


class Factor(nn.Module):
    """A factor of a mean-field guide: called with rows, it gives the distributions of these.

    With ``pathwise`` False its draws carry no gradient, so that an ELBO differentiates it by the score function. The
    family is the same either way.

    Example:
        >>> factor = NormalFactor(torch.zeros(3), 0.1)
        >>> factor().has_rsample, factor(torch.tensor([2])).batch_shape
        (False, torch.Size([1]))
    """

    pathwise = False
    families: tuple[Callable[..., TorchDistributionMixin], Callable[..., TorchDistributionMixin]]
    """The family without and with a reparametrised sampler."""

    def forward(self, rows: Rows = ...) -> TorchDistributionMixin:
        """Distributions of these rows."""
        return self.families[self.pathwise](*(parameter[rows] for parameter in self.natural()))

    def natural(self) -> tuple[Tensor, ...]:
        """Arguments of the family."""
        raise NotImplementedError


class NormalFactor(Factor):
    """Independent normals; the parameters count from where they start and in units of one's own.

    Args:
        mean: where the means start.
        sd: where the standard deviations start, in units.
        unit: about the standard deviation that is expected in the end, so that steps of one size suit all parameters.
    """

    families = (NonreparameterizedNormal, dist.Normal)
    start: Tensor
    unit: Tensor

    def __init__(self, mean: Float[Tensor, "*shape"], sd: float, unit: Float[Tensor, "*shape"] | float = 1.0):
        super().__init__()
        self.register_buffer("start", mean.clone())
        self.register_buffer("unit", torch.as_tensor(unit, dtype=mean.dtype).expand_as(mean).clone())
        self.shift = nn.Parameter(torch.zeros_like(mean))
        self.raw_sd = nn.Parameter(inverse_softplus(torch.full_like(mean, sd - SD_FLOOR)))

    def natural(self) -> tuple[Tensor, ...]:
        """Means and standard deviations."""
        return self.start + self.unit * self.shift, self.unit * (SD_FLOOR + softplus(self.raw_sd))


class LogNormalFactor(NormalFactor):
    """Independent positive variables whose logarithms are normal with the given means and standard deviations."""

    families = (NonreparameterizedLogNormal, dist.LogNormal)


class GammaFactor(Factor):
    """Independent gammas by mean and shape; both have floors, so that draws do not underflow to 0.

    Mean and shape are orthogonal in the Fisher information, mean and rate are not.

    Args:
        mean: where the means start.
        shape: where the shapes start: the squared ratio of mean and standard deviation.
    """

    families = (NonreparameterizedGamma, dist.Gamma)

    def __init__(self, mean: Float[Tensor, "*shape"], shape: float):
        super().__init__()
        self.raw_mean = nn.Parameter(inverse_softplus(mean - MEAN_FLOOR))
        self.raw_shape = nn.Parameter(inverse_softplus(torch.full_like(mean, shape - SHAPE_FLOOR)))

    def natural(self) -> tuple[Tensor, ...]:
        """Shapes and rates."""
        shape = SHAPE_FLOOR + softplus(self.raw_shape)
        return shape, shape / (MEAN_FLOOR + softplus(self.raw_mean))


class BetaFactor(Factor):
    """Independent betas, by the logarithms of the two counts."""

    families = (NonreparameterizedBeta, dist.Beta)

    def __init__(self, alpha: Float[Tensor, "*shape"], beta: Float[Tensor, "*shape"]):
        super().__init__()
        self.log_alpha = nn.Parameter(alpha.log())
        self.log_beta = nn.Parameter(beta.log())

    def natural(self) -> tuple[Tensor, ...]:
        """Both counts."""
        return self.log_alpha.exp(), self.log_beta.exp()


class BetaMeanFactor(Factor):
    """Independent betas, by the logit of the mean and the logarithm of the sum of both counts.

    Mean and sum are nearly orthogonal in the Fisher information. By the counts themselves a beta that is to become
    narrow does so slowly, as each of them moves the mean as well.

    Args:
        mean: where the means start.
        total: where the sums start.
    """

    families = (NonreparameterizedBeta, dist.Beta)

    def __init__(self, mean: Float[Tensor, "*shape"], total: float):
        super().__init__()
        self.logit = nn.Parameter(mean.logit())
        self.log_total = nn.Parameter(torch.full_like(mean, total).log())

    def natural(self) -> tuple[Tensor, ...]:
        """Both counts."""
        mean, total = self.logit.sigmoid(), self.log_total.exp()
        return mean * total, (1 - mean) * total


class BernoulliFactor(Factor):
    """Independent binary variables, by their logits; there is no reparametrised sampler."""

    def __init__(self, logits: Float[Tensor, "*shape"]):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, rows: Rows = ...) -> TorchDistributionMixin:
        """Distributions of these rows."""
        return dist.Bernoulli(logits=self.logits[rows])


def inverse_softplus(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Undo ``softplus``.

    Example:
        >>> inverse_softplus(softplus(torch.tensor(2.0)))
        tensor(2.)
    """
    return value + (-(-value).expm1()).log()
