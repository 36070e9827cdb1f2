"""An estimator that evaluates the model on antithetic samples is added without a branch in the model."""

import pytest
import torch

from zoo.gradients.estimators import ESTIMATORS, GradientEstimate, GradientEstimator, sum_terms
from zoo.inference.sbn import ConditionedNetwork, SigmoidBeliefNetwork, exact_elbo


class DisARM(GradientEstimator):
    """DisARM for one layer: Dong, Mnih & Tucker, "DisARM: an antithetic gradient estimator", 2020, equation 8."""

    min_particles = 2

    def __init__(self, units, make_net, *, baseline=None, decay=0.9, scale=False, local_signals=True):
        super().__init__()

    def forward(self, model, num_particles):
        (noise,) = model.noise(num_particles // 2)
        first, first_logits = self.evaluate(model, noise)
        second, _ = self.evaluate(model, 1 - noise)
        elbos = [sum_terms(one.log_joint) - sum_terms(one.log_q) for one in (first, second)]
        probability = first_logits.sigmoid()
        units, antithetic = (noise < probability).double(), (1 - noise < probability).double()
        sign = torch.where(units != antithetic, torch.where(antithetic == 1, -1.0, 1.0), 0.0)
        weight = 0.5 * (elbos[0] - elbos[1]).detach()[..., None] * sign * first_logits.abs().sigmoid().detach()
        bound = (elbos[0] + elbos[1]) / 2
        pathwise = -(sum_terms(first.log_joint) + sum_terms(second.log_joint)).mean() / 2
        score = -(weight * first_logits).sum(-1).mean()
        return GradientEstimate(pathwise, score, bound.new_zeros(()), bound.detach().mean(0), [])

    def evaluate(self, model, noise):
        seen = []

        def sampler(layer, logits):
            seen.append(logits)
            return (noise < logits.detach().sigmoid()).to(logits)

        return model.evaluate(sampler), seen[0]


@pytest.fixture
def disarm(monkeypatch):
    monkeypatch.setitem(ESTIMATORS, "disarm", DisARM)


@pytest.mark.usefixtures("without_type_checks")
def test_antithetic_estimator_is_unbiased(make_network, x, gradient):
    """Noise on a grid symmetric around 1/2 takes each pair of antithetic states equally often as uniform noise."""
    network = make_network(2)
    with torch.no_grad():  # probabilities at which the grid is exact
        network.up[0][0].weight.zero_()
        network.up[0][0].bias.copy_(torch.tensor([0.25, 0.7], dtype=torch.double).logit())
    grid = (torch.arange(20, dtype=torch.double) + 0.5) / 20
    noise = torch.cartesian_prod(grid, grid)[:, None]

    class OnGrid(ConditionedNetwork):
        def noise(self, num_particles):
            return [noise]

    def error(factor):
        estimate = DisARM([2], None)(OnGrid(network, x), num_particles=2 * len(noise))
        exact = gradient(-exact_elbo(network, x).mean(), network)
        return (gradient(estimate.pathwise + factor * estimate.score, network) - exact).abs().max().item()

    assert error(1.0) < 1e-12
    assert error(0.9) > 1e-3


@pytest.mark.usefixtures("disarm")
def test_registered_estimator_is_used_by_the_network():
    model = SigmoidBeliefNetwork((1, 2, 2), layers=[3], estimator={"name": "disarm"}, num_particles=2)
    assert isinstance(model.estimator, DisARM)
    assert model.objective(torch.ones(5, 4)).bound.shape == (5,)
    with pytest.raises(ValueError, match=r"^estimator=disarm needs model\.num_particles >= 2, got 1"):
        SigmoidBeliefNetwork((1, 2, 2), layers=[3], estimator={"name": "disarm"}, num_particles=1)
    with pytest.raises(ValueError, match="estimator=disarm has no learning signals of single layers"):
        SigmoidBeliefNetwork((1, 2, 2), layers=[3], estimator={"name": "disarm"}, local_signals=False)


def test_unknown_estimator_raises_with_the_nearest():
    with pytest.raises(ValueError, match=r"^there is no estimator 'vimko'; there are: .*\. Did you mean vimco\?$"):
        SigmoidBeliefNetwork((1, 2, 2), estimator={"name": "vimko"})
    with pytest.raises(ValueError, match=r"^learned is a baseline: set estimator\.baseline=learned$"):
        SigmoidBeliefNetwork((1, 2, 2), estimator={"name": "learned"})
