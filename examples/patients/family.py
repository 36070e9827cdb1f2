from dataclasses import dataclass

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

FLOOR = 0.1


@dataclass(frozen=True)
class FactorFamily:
    """One of the four factor models of longitudinal labs, with its scales.

    Ranganath, Gerrish & Blei, "Black box variational inference", 2014, section 5. A lab of a patient at a visit is
    about ``w x + o``, with positive states ``x`` of the patient at the visit.

    ====================  ================  ================  ==========================  =======================
    model                 weights           offsets           states                      lab
    ====================  ================  ================  ==========================  =======================
    Gamma-Normal          N(0, s_w)         N(0, s_o)         GammaE(a_x, s_x)            N(w x + o, s_l)
    Gamma-Normal-TS       N(0, s_w)         N(0, s_o)         GammaE(previous, s_v)       N(w x + o, s_l)
    Gamma-Gamma           Gamma(a_w, b_w)   Gamma(a_o, b_o)   GammaE(a_x, s_x)            GammaE(w x + o, s_l)
    Gamma-Gamma-TS        Gamma(a_w, b_w)   Gamma(a_o, b_o)   GammaE(previous, s_v)       GammaE(w x + o, s_l)
    ====================  ================  ================  ==========================  =======================

    ``GammaE(μ, σ)`` is the gamma with this mean and standard deviation; the states of a series begin with
    ``GammaE(a_x, s_x)``. The paper states ``s_w = s_o = s_x = 1`` and ``s_l = 0.01``, but not the number of factors,
    ``a_x``, the parameters of the gammas, the scaling of labs, or whether ``s`` is a variance. Chosen here: standard
    deviations, 0.1 for a lab of about 1 (0.01 as a variance); five factors; ``a_x = 3``; exponential priors with mean 1
    for weights and offsets. ``GammaE`` clips the mean at a tenth of ``σ``, which keeps its shape at 0.01 or more;
    otherwise a series near 0 would become NaN.

    Args:
        series: states depend on those of the previous visit; otherwise they are independent.
        positive: gammas for weights, offsets and labs; otherwise normals.
        factors: number of states, ``K``.

    Example:
        >>> FactorFamily(series=True, positive=False).name
        'gamma_normal_ts'
    """

    series: bool
    positive: bool
    factors: int = 5
    weight_sd: float = 1.0
    offset_sd: float = 1.0
    weight_shape: float = 1.0
    weight_rate: float = 1.0
    offset_shape: float = 1.0
    offset_rate: float = 1.0
    start_mean: float = 3.0
    start_sd: float = 1.0
    step_sd: float = 1.0
    lab_sd: float = 0.1

    def __post_init__(self) -> None:
        if self.factors < 1 or min(value for name, value in vars(self).items() if type(value) is float) <= 0:
            raise ValueError(f"the numbers of a factor model must be positive, got {self}")

    @property
    def name(self) -> str:
        """Name among the programs."""
        return f"gamma_{'gamma' if self.positive else 'normal'}{'_ts' if self.series else ''}"

    def weight_prior(self, like: Tensor) -> TorchDistributionMixin:
        """Prior of each weight, with the type and device of ``like``."""
        if self.positive:
            return dist.Gamma(like.new_tensor(self.weight_shape), like.new_tensor(self.weight_rate))
        return dist.Normal(like.new_tensor(0.0), like.new_tensor(self.weight_sd))

    def offset_prior(self, like: Tensor) -> TorchDistributionMixin:
        """Prior of each offset, with the type and device of ``like``."""
        if self.positive:
            return dist.Gamma(like.new_tensor(self.offset_shape), like.new_tensor(self.offset_rate))
        return dist.Normal(like.new_tensor(0.0), like.new_tensor(self.offset_sd))

    def first_state(self, like: Tensor) -> TorchDistributionMixin:
        """Prior of a state without a previous one, with the type and device of ``like``."""
        return gamma_e(like.new_tensor(self.start_mean), self.start_sd)

    def next_state(self, previous: Tensor) -> TorchDistributionMixin:
        """Prior of the states at a visit of a series, conditional on those at the previous visit."""
        return gamma_e(previous, self.step_sd)

    def lab(self, mean: Tensor) -> TorchDistributionMixin:
        """Distribution of labs conditional on ``w x + o``."""
        return gamma_e(mean, self.lab_sd) if self.positive else dist.Normal(mean, mean.new_tensor(self.lab_sd))


def gamma_e(mean: Tensor, sd: float) -> dist.Gamma:
    """Return the gamma with a mean, clipped at ``sd / 10``, and a standard deviation: ``α = μ²/σ²``, ``β = μ/σ²``.

    Example:
        >>> import torch
        >>> gamma_e(torch.tensor(3.0), 0.5).mean, gamma_e(torch.tensor(3.0), 0.5).stddev
        (tensor(3.), tensor(0.5000))
    """
    mean = mean.clamp(min=FLOOR * sd)
    return dist.Gamma((mean / sd).square(), mean / sd**2)
