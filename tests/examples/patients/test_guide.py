from functools import partial

import pyro
import pytest
import torch
from pyro.infer import SVI

from examples.patients import Factors, Guide, expected_labs, factors_of, model
from examples.patients.labs import rescale
from zoo.inference._mean_field import sample_guide
from zoo.inference.elbo import BlackBoxELBO


def test_factors_are_read_from_the_sites_of_both_kinds_of_models(family, factors, sites):
    found = factors_of({name: torch.stack([value, 2 * value]) for name, value in sites(family, factors).items()})
    assert torch.equal(found.weights, torch.stack([factors.weights, 2 * factors.weights]))
    assert torch.equal(found.offsets, torch.stack([factors.offsets, 2 * factors.offsets]))
    assert torch.equal(found.states, torch.stack([factors.states, 2 * factors.states]))


def test_samples_of_the_guide_have_the_shapes_of_the_factors(family, labs):
    drawn = factors_of(sample_guide(Guide(family, labs), (labs,), 5, seed=0))
    assert [tuple(part.shape) for part in drawn] == [(5, 2, 3), (5, 3), (5, 3, 4, 2)]
    assert (drawn.states > 0).all()


def test_each_patient_and_visit_has_its_own_variational_factor(family, labs):
    guide = Guide(family, labs)
    with torch.no_grad():
        guide.states.raw_shape.fill_(1e6)
        guide.states.raw_mean.copy_(torch.arange(1.0, 25.0).reshape(4, 3, 2, 1))
    drawn = factors_of(sample_guide(guide, (labs,), 1, seed=0)).states[0]
    expected = torch.nn.functional.softplus(torch.arange(1.0, 25.0).reshape(4, 3, 2)).transpose(0, 1)
    assert torch.allclose(drawn, expected, rtol=0.02)


def test_guide_for_new_patients_has_new_states_and_frozen_weights(family, labs):
    guide = Guide(family, labs)
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.1)
    two = labs.of_patients(torch.tensor([2, 0]))
    other = guide.for_patients(two)
    assert {name for name, _ in other.named_parameters()} == {"states.raw_mean", "states.raw_shape"}
    for name, value in guide.weights.state_dict().items():
        assert torch.equal(other.weights.state_dict()[name], value)
    for name, value in guide.offsets.state_dict().items():
        assert torch.equal(other.offsets.state_dict()[name], value)
    drawn = factors_of(sample_guide(other, (two,), 1, seed=0))
    assert isinstance(drawn, Factors)
    assert drawn.states.shape == (1, 2, 4, 2)
    assert len(list(guide.parameters())) == 6


@pytest.mark.usefixtures("without_type_checks")
def test_only_states_of_new_patients_are_trained(family, labs):
    held = Guide(family, labs).for_patients(labs)
    before = {name: value.clone() for name, value in held.state_dict().items()}
    svi = SVI(partial(model, family), held, pyro.optim.Adam({"lr": 0.01}), BlackBoxELBO(4, vectorize_particles=True))
    svi.step(labs)
    moved = {name for name, value in held.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"states.raw_mean", "states.raw_shape"}


def test_guide_starts_at_the_mean_of_each_lab_in_any_unit(family, labs):
    def start(labs):
        torch.manual_seed(0)
        drawn = factors_of(sample_guide(Guide(family, labs), (labs,), 400, seed=0))
        return expected_labs(
            drawn.states.unsqueeze(-1), drawn.weights[:, None, None], drawn.offsets[:, None, None, None]
        )

    means = (labs.values * labs.observed).sum((0, 1)) / labs.observed.sum((0, 1))
    found = start(labs).mean((0, 1, 2, 3))
    tolerance = 0.5 * means if family.positive else torch.full((3,), 0.5)  # the weights are drawn at random
    assert ((found - means).abs() < tolerance).all()
    if family.positive:
        hundredfold = start(rescale(labs, torch.full((3,), 0.01)))
        assert torch.allclose(hundredfold.mean((0, 1, 2, 3)), 100 * found, rtol=0.01)


def test_unobserved_lab_starts_at_one(family, labs):
    never = labs.restrict_observed(labs.observed & torch.tensor([True, True, False]))
    assert Guide(family, never).offsets().mean[2].item() == pytest.approx(0.5 if family.positive else 1.0)


def test_factors_can_be_restricted_to_some_patients(factors):
    last = factors.of_patients(slice(1, None))
    assert torch.equal(last.states, factors.states[1:])
    assert torch.equal(last.weights, factors.weights)
