from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import EllipsisType, MappingProxyType

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.distributions.testing.fakes import NonreparameterizedBeta, NonreparameterizedGamma, NonreparameterizedNormal
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import softplus

Rows = Tensor | EllipsisType | tuple[int | slice | EllipsisType | Tensor, ...]

SD_FLOOR = 1e-3
MEAN_FLOOR = 1e-3
# A draw of Gamma(shape, 1) lies below the smallest float32, 1e-38, with probability of about 1e-38 ** shape.
SHAPE_FLOOR = 0.3


class NonreparameterizedLogNormal(dist.LogNormal):
    """LogNormal without a reparameterized sampler, like those of ``pyro.distributions.testing.fakes``."""

    has_rsample = False


class Factor(nn.Module):
    """A factor of a mean-field guide; calling it with an index returns the distributions of these elements.

    With ``pathwise=False`` its samples carry no gradient, so that an ELBO uses the score function; the family is the
    same in both cases.

    Example:
        >>> factor = NormalFactor(torch.zeros(3), 0.1)
        >>> factor().has_rsample, factor(torch.tensor([2])).batch_shape
        (False, torch.Size([1]))
    """

    pathwise = False
    families: tuple[Callable[..., TorchDistributionMixin], Callable[..., TorchDistributionMixin]]
    """The family without and with a reparameterized sampler."""

    def forward(self, rows: Rows = ...) -> TorchDistributionMixin:
        return self.families[self.pathwise](*(parameter[rows] for parameter in self.distribution_args()))

    def distribution_args(self) -> tuple[Tensor, ...]:
        raise NotImplementedError


class NormalFactor(Factor):
    """Independent normals, parameterized relative to their initial means and in units of a given scale.

    Args:
        mean: initial means.
        sd: initial standard deviations, in units.
        unit: approximate final standard deviation, so that one step size suits all parameters.

    Example:
        >>> NormalFactor(torch.tensor([2.0]), sd=0.1)().mean.tolist()
        [2.0]
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

    def distribution_args(self) -> tuple[Tensor, ...]:
        return self.start + self.unit * self.shift, self.unit * (SD_FLOOR + softplus(self.raw_sd))


class LogNormalFactor(NormalFactor):
    """Independent positive variables whose logarithms are normal with the given means and standard deviations.

    Example:
        >>> LogNormalFactor(torch.tensor([2.0]), sd=0.1)().loc.tolist()
        [2.0]
    """

    families = (NonreparameterizedLogNormal, dist.LogNormal)


class GammaFactor(Factor):
    """Independent gammas, parameterized by mean and shape; both have a floor, so that samples do not underflow to 0.

    Mean and shape are orthogonal in the Fisher information, mean and rate are not.

    Args:
        mean: initial means.
        shape: initial shapes, the squared ratio of mean and standard deviation.

    Example:
        >>> round(GammaFactor(torch.tensor(2.0), shape=9.0)().mean.item(), 4)
        2.0
    """

    families = (NonreparameterizedGamma, dist.Gamma)

    def __init__(self, mean: Float[Tensor, "*shape"], shape: float):
        super().__init__()
        self.raw_mean = nn.Parameter(inverse_softplus(mean - MEAN_FLOOR))
        self.raw_shape = nn.Parameter(inverse_softplus(torch.full_like(mean, shape - SHAPE_FLOOR)))

    def distribution_args(self) -> tuple[Tensor, ...]:
        shape = SHAPE_FLOOR + softplus(self.raw_shape)
        return shape, shape / (MEAN_FLOOR + softplus(self.raw_mean))


class BetaFactor(Factor):
    """Independent betas, parameterized by the logarithms of the two concentrations.

    Example:
        >>> BetaFactor(torch.tensor(1.0), torch.tensor(1.0))().mean.item()
        0.5
    """

    families = (NonreparameterizedBeta, dist.Beta)

    def __init__(self, alpha: Float[Tensor, "*shape"], beta: Float[Tensor, "*shape"]):
        super().__init__()
        self.log_alpha = nn.Parameter(alpha.log())
        self.log_beta = nn.Parameter(beta.log())

    def distribution_args(self) -> tuple[Tensor, ...]:
        return self.log_alpha.exp(), self.log_beta.exp()


class BetaMeanFactor(Factor):
    """Independent betas, parameterized by the logit of the mean and the log of the total concentration.

    Mean and total are nearly orthogonal in the Fisher information. With the two concentrations as parameters, a beta
    becomes narrow only slowly, since each of them also moves the mean.

    Args:
        mean: initial means.
        total: initial total concentrations.

    Example:
        >>> BetaMeanFactor(torch.tensor(0.5), total=20.0)().mean.item()
        0.5
    """

    families = (NonreparameterizedBeta, dist.Beta)

    def __init__(self, mean: Float[Tensor, "*shape"], total: float):
        super().__init__()
        self.logit = nn.Parameter(mean.logit())
        self.log_total = nn.Parameter(torch.full_like(mean, total).log())

    def distribution_args(self) -> tuple[Tensor, ...]:
        mean, total = self.logit.sigmoid(), self.log_total.exp()
        return mean * total, (1 - mean) * total


class BernoulliFactor(Factor):
    """Independent binary variables, parameterized by their logits; there is no reparameterized sampler.

    Example:
        >>> BernoulliFactor(torch.zeros(2))().mean.tolist()
        [0.5, 0.5]
    """

    def __init__(self, logits: Float[Tensor, "*shape"]):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, rows: Rows = ...) -> TorchDistributionMixin:
        return dist.Bernoulli(logits=self.logits[rows])


class MeanFieldGuide(PyroModule):
    """A guide that samples independent factors, in the given order.

    Args:
        factors: factor of each site.
        plates: name of the plate of each site whose factor is a vector.

    Example:
        >>> guide = MeanFieldGuide({"z": NormalFactor(torch.zeros(3), 0.1)}, {"z": "data"})
        >>> pyro.poutine.trace(guide).get_trace().nodes["z"]["value"].shape
        torch.Size([3])
    """

    def __init__(self, factors: Mapping[str, Factor], plates: Mapping[str, str] = MappingProxyType({})):
        super().__init__()
        self.plates = dict(plates)
        for name, factor in factors.items():
            setattr(self, name, factor)

    def forward(self, *data: object) -> None:
        # PyroModule registers the parameters at an access by name.
        distributions = {name: getattr(self, name)() for name, _ in self.named_children()}
        sizes = {self.plates[name]: x.batch_shape[0] for name, x in distributions.items() if name in self.plates}
        plates = {name: pyro.plate(name, size) for name, size in sizes.items()}
        for name, distribution in distributions.items():
            with plates[self.plates[name]] if name in self.plates else nullcontext():
                pyro.sample(name, distribution)


def inverse_softplus(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return value + (-(-value).expm1()).log()
