"""Requirements of every program of the registry and of the study of patients."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import ImproperUniform
from pyro.infer import SVI, Trace_ELBO

from examples.patients import PATIENT_PROGRAMS
from zoo.inference._mean_field import pathwise_guide, sample_guide
from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.programs import PROGRAMS, Program

PARTICLES = -9
QUARTILES = torch.tensor([0.25, 0.75], dtype=torch.float64)


ALL = PROGRAMS | PATIENT_PROGRAMS


@pytest.fixture(params=sorted(ALL))
def program(request, double) -> Program:
    return ALL[request.param]


@pytest.fixture
def data(program, zoo_data):
    return program.load(zoo_data)


def latent_sites(trace):
    """Sites that are neither observed nor of a plate."""
    sites = {name: trace.nodes[name] for name in trace.stochastic_nodes}
    return {name: site for name, site in sites.items() if not poutine.util.site_is_subsample(site)}


def replayed(program, data):
    """Traces of the guide and of the model at the guide's draws."""
    guide = program.guide(*data)
    q = poutine.trace(guide).get_trace(*data)
    return q, poutine.trace(poutine.replay(program.model, trace=q)).get_trace(*data)


def test_model_and_guide_have_the_same_latent_sites_with_the_same_supports(program, data):
    q, p = (latent_sites(trace) for trace in replayed(program, data))
    assert q.keys() == p.keys()
    for name, site in q.items():
        draws = site["fn"].expand((50, *site["fn"].batch_shape)).sample()
        assert site["value"].shape == p[name]["fn"].batch_shape, name
        assert p[name]["fn"].support.check(draws).all(), name
        assert site["value"].dtype == torch.float64, name


def test_every_factor_uses_score_function_and_depends_on_no_other_sample(program, data):
    q, p = replayed(program, data)
    for name, site in latent_sites(q).items():
        assert not site["fn"].has_rsample, name
        assert not site["value"].requires_grad, name
    assert p.log_prob_sum().isfinite()


def test_guide_of_each_program_starts_narrow(program, data):
    """Compared with the values or, as these may be near 0, with the quartiles of the prior if there are any."""
    priors = latent_sites(replayed(program, data)[1])
    sites = sample_guide(program.guide(*data), data, 200, seed=0)
    for name, site in priors.items():
        if site["fn"].support.is_discrete:
            continue
        scale = sites[name].mean(0).abs()
        if not isinstance(site["fn"], ImproperUniform):
            lower, upper = site["fn"].expand((1000, *site["fn"].batch_shape)).sample().quantile(QUARTILES, 0)
            scale = scale + (upper - lower)
        assert (sites[name].std(0) < 0.3 * scale).all(), name


def test_every_parameter_has_a_gradient_with_sequential_and_vectorized_particles(program, data):
    for vectorize in (False, True):
        guide = program.guide(*data)
        elbo = Trace_ELBO(num_particles=2, vectorize_particles=vectorize)
        elbo.differentiable_loss(program.model, guide, *data).backward()
        for name, parameter in guide.named_parameters():
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name
        pyro.clear_param_store()


def test_vectorized_samples_have_same_densities_as_sequential_ones(program, data, joint):
    draws = sample_guide(program.guide(*data), data, 3, seed=0)
    one_by_one = [joint(program.model, data, {name: value[i] for name, value in draws.items()}) for i in range(3)]

    def vectorized_model():
        with pyro.plate("particles", 3, dim=PARTICLES):
            program.model(*data)

    values = {
        name: value.reshape(3, *[1] * (-PARTICLES - value.ndim), *value.shape[1:]) for name, value in draws.items()
    }
    trace = poutine.trace(poutine.condition(vectorized_model, values)).get_trace()
    trace.compute_log_prob()
    sites = [site["log_prob"] for site in trace.nodes.values() if "log_prob" in site]
    per_draw = sum(term.reshape(3, -1).sum(1) if term.ndim == -PARTICLES else term for term in sites)
    assert per_draw.tolist() == pytest.approx(one_by_one, rel=1e-10)


def test_quantities_match_names_of_reference(program, data, zoo_data):
    if program.reference is None:
        assert program.quantities is None
        return
    names = program.reference(zoo_data).names
    assert program.quantities(sample_guide(program.guide(*data), data, 4, seed=0)).shape == (4, len(names))


@pytest.mark.usefixtures("without_type_checks")
@pytest.mark.filterwarnings("ignore:.* is outside every plate")
@pytest.mark.parametrize("vectorize", [pytest.param(False, marks=pytest.mark.slow), True])
def test_svi_trains_all_parameters_of_the_guide(program, data, vectorize):
    guide = program.guide(*data)
    before = [parameter.detach().clone() for parameter in guide.parameters()]
    elbo = BlackBoxELBO(num_particles=2, vectorize_particles=vectorize)
    svi = SVI(program.model, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    losses = [svi.step(*data) for _ in range(20)]
    assert all(math.isfinite(loss) for loss in losses)
    assert all((old != new).any() for old, new in zip(before, guide.parameters(), strict=True))
    assert set(elbo.estimators.sites) == {f"site {name}" for name in latent_sites(replayed(program, data)[0])}


def test_the_pathwise_copy_is_the_same_family(program, data):
    guide = program.guide(*data)
    if "second" in latent_sites(poutine.trace(guide).get_trace(*data)):
        with pytest.raises(ValueError, match="only a guide of continuous factors"):
            pathwise_guide(guide)
        return
    with pyro.get_param_store().scope():
        scored = latent_sites(poutine.trace(guide).get_trace(*data))
    copy = pathwise_guide(guide)
    with pyro.get_param_store().scope():
        sampled = latent_sites(poutine.trace(copy).get_trace(*data))
    for name, site in sampled.items():
        assert site["fn"].has_rsample
        assert site["value"].requires_grad
        assert torch.equal(site["fn"].log_prob(site["value"]), scored[name]["fn"].log_prob(site["value"]))


@pytest.mark.parametrize("name", ["kidiq", "hmm_example", "sblri"])
def test_missing_data_of_each_program_raise_with_remedy(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="but ZOO_DATA is not set"):
        PROGRAMS[name].load(None)
    with pytest.raises(FileNotFoundError, match="set ZOO_DATA to the parent folder of posteriordb"):
        PROGRAMS[name].load(tmp_path)
