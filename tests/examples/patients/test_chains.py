import pytest
import torch

from examples.patients import (
    constrained,
    gibbs_blocks,
    initial_state,
    local_log_density,
    log_joint,
    potential,
    unconstrained,
)
from examples.patients.gibbs import metropolis_within_gibbs


def test_sweep_proposes_each_variable_of_attended_visits_once(family, labs, factors):
    for variable, value in factors._asdict().items():
        proposed = sum(block.chosen.long() for block in gibbs_blocks(family, labs) if block.variable == variable)
        once = labs.attended[..., None].expand_as(value) if variable == "states" else torch.ones_like(value)
        assert torch.equal(proposed, once.long())


def test_variables_of_a_block_are_conditionally_independent(family, labs, factors):
    for block in gibbs_blocks(family, labs):
        before = local_log_density(block.variable, family, labs, factors)
        for place in block.chosen.nonzero().tolist():
            changed = getattr(factors, block.variable).clone()
            changed[tuple(place)] += 0.3
            after = local_log_density(block.variable, family, labs, factors._replace(**{block.variable: changed}))
            others = block.chosen.clone()
            others[tuple(place)] = False
            if block.variable == "states":  # the constant of another state of the visit may change, that of others not
                assert torch.equal(after[others], before[others])
            else:
                assert torch.allclose(after[others], before[others], rtol=1e-12)


def test_adjacent_visits_of_a_series_are_dependent(family, labs, factors):
    changed = factors.states.clone()
    changed[0, 1] += 0.3
    before, after = (
        local_log_density("states", family, labs, factors._replace(states=states))[0, 2]
        for states in (factors.states, changed)
    )
    assert torch.equal(before, after) != family.series


def test_chain_changes_all_attended_states_and_no_padding(family, labs):
    start = initial_state(family, labs, seed=0)
    chain = metropolis_within_gibbs(start._asdict(), gibbs_blocks(family, labs), warm_up=20, seed=0)
    for _ in range(30):
        state = next(chain)
    assert (state["weights"] != start.weights).all()
    assert torch.equal((state["states"] != start.states).all(-1), labs.attended)
    assert (state["states"] > 0).all()


def test_initial_state_is_sampled_from_the_initial_guide_without_the_global_random_state(family, labs):
    before = torch.get_rng_state()
    one, again, other = (initial_state(family, labs, seed) for seed in (0, 0, 1))
    assert torch.equal(one.states, again.states)
    assert not torch.equal(one.states, other.states)
    assert torch.equal(torch.get_rng_state(), before)
    assert log_joint(family, labs, one).isfinite()


def test_constrained_inverts_unconstrained_except_in_the_padding(family, labs, factors):
    back = constrained(family, labs, unconstrained(family, labs, factors))
    assert torch.allclose(back.weights, factors.weights)
    assert torch.allclose(back.offsets, factors.offsets)
    assert torch.allclose(back.states[labs.attended], factors.states[labs.attended])
    assert (back.states[~labs.attended] == 1).all()
    draws = {name: torch.stack([value] * 3) for name, value in unconstrained(family, labs, factors).items()}
    assert constrained(family, labs, draws).states.shape == (3, 3, 4, 2)


def test_potential_is_minus_the_log_density_of_the_unconstrained_variables(family, labs, factors):
    """With the determinant of the Jacobian by differentiation."""
    state = unconstrained(family, labs, factors)
    jacobian = 0.0
    for name, value in state.items():
        leaf = value.clone().requires_grad_()
        back = getattr(constrained(family, labs, {**state, name: leaf}), name)
        (slope,) = torch.autograd.grad(back.sum(), leaf)
        jacobian += slope.log().sum().item()
    expected = -log_joint(family, labs, factors).item() - jacobian
    assert potential(family, labs)(state).item() == pytest.approx(expected, rel=1e-10)


def test_potential_has_a_gradient_for_every_variable(family, labs, factors):
    state = {name: value.requires_grad_() for name, value in unconstrained(family, labs, factors).items()}
    potential(family, labs)(state).backward()
    for name, value in state.items():
        assert value.grad.isfinite().all(), name
        assert (value.grad != 0).any(), name
