import pytest
import torch
from scipy import stats

from examples.patients import local_log_density, log_joint, model


def by_hand(family, labs, factors) -> float:
    """The joint density of ``FactorFamily``'s table, one variable at a time."""

    def gamma_e(mean, sd):
        mean = max(mean, sd / 10)
        return stats.gamma(mean**2 / sd**2, scale=sd**2 / mean)

    weights, offsets, states = (part.tolist() for part in factors)
    weight = stats.gamma(1.0) if family.positive else stats.norm(0, 1)
    total = sum(weight.logpdf(w) for row in weights for w in row) + sum(weight.logpdf(o) for o in offsets)
    for p, patient in enumerate(states):
        for v, visit in enumerate(patient):
            if not labs.attended[p, v]:
                continue
            for k, state in enumerate(visit):
                goes_on = family.series and v > 0
                prior = gamma_e(patient[v - 1][k], 0.7) if goes_on else gamma_e(3.0, 1.0)
                total += prior.logpdf(state)
            for kind in range(3):
                mean = offsets[kind] + sum(weights[k][kind] * state for k, state in enumerate(visit))
                lab = gamma_e(mean, 0.3) if family.positive else stats.norm(mean, 0.3)
                if labs.observed[p, v, kind]:
                    total += lab.logpdf(labs.values[p, v, kind].item())
    return total


def test_log_density_of_the_program_equals_that_of_a_loop_over_visits(family, labs, factors, sites, joint):
    found = joint(model, (family, labs), sites(family, factors))
    assert found == pytest.approx(by_hand(family, labs, factors), rel=1e-10)


def test_log_joint_equals_that_of_the_program_for_many_samples(family, labs, factors):
    expected = by_hand(family, labs, factors)
    assert log_joint(family, labs, factors).item() == pytest.approx(expected, rel=1e-10)
    twice = type(factors)(*(torch.stack([part, part]) for part in factors))
    assert log_joint(family, labs, twice).tolist() == pytest.approx([expected] * 2, rel=1e-10)


def test_padding_and_missing_labs_have_no_influence(family, labs, factors, sites, joint):
    before = joint(model, (family, labs), sites(family, factors))
    other = labs._replace(values=labs.values.where(labs.observed, 9.0))
    moved = factors._replace(states=factors.states.where(labs.attended[..., None], 7.0))
    assert joint(model, (family, other), sites(family, moved)) == before
    assert log_joint(family, other, moved) == log_joint(family, labs, factors)
    assert log_joint(family, labs, factors._replace(states=factors.states + 0.01)) != log_joint(family, labs, factors)


@pytest.mark.parametrize("variable", ["weights", "offsets", "states"])
def test_local_log_density_changes_as_the_log_joint_does(family, labs, factors, variable):
    value = getattr(factors, variable)
    before, joint_before = local_log_density(variable, family, labs, factors), log_joint(family, labs, factors)
    assert before.shape == value.shape
    for place in torch.cartesian_prod(*(torch.arange(size) for size in value.shape)).reshape(-1, value.ndim).tolist():
        changed = value.clone()
        changed[tuple(place)] += 0.3
        moved = factors._replace(**{variable: changed})
        local = (local_log_density(variable, family, labs, moved) - before)[tuple(place)]
        if variable == "states" and not labs.attended[tuple(place[:2])]:
            continue
        assert local.item() == pytest.approx((log_joint(family, labs, moved) - joint_before).item(), abs=1e-9)
