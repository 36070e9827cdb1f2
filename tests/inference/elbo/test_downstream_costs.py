"""Learning signals of sites."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo._downstream_costs import downstream_costs, score_function_terms, sum_to_plates
from zoo.inference.elbo._sites import Plate
from zoo.inference.elbo._tracing import ModelGuideCall, trace_vectorized

X = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
ROWS, COLUMNS = Plate("rows", -2, 2), Plate("columns", -1, 3)


def model(x):
    top = pyro.sample("top", dist.Bernoulli(logits=0.2))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(logits=top - 0.5))
        pyro.sample("x", dist.Bernoulli(logits=2 * z - 1), obs=x)


def guide(x):
    pyro.sample("top", dist.Bernoulli(logits=torch.tensor(0.4)))
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Bernoulli(logits=x))


def terms_of(sites):
    return {name: site.density.log_prob for name, site in sites.items()}


class TestSignal:
    def test_signal_is_the_sum_of_downstream_terms(self, run_once):
        run = run_once(model, guide, X)
        p, q = terms_of(run.model), terms_of(run.guide)
        signals = downstream_costs(run)
        torch.testing.assert_close(signals["top"], p["top"] + p["z"].sum() - q["top"])
        torch.testing.assert_close(signals["z"], p["z"] + p["x"] - q["z"])

    def test_signal_has_no_gradient(self, run_once):
        def learned(x):
            pyro.sample("top", dist.Bernoulli(logits=pyro.param("logit", torch.tensor(0.4))))
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Bernoulli(logits=x))

        run = run_once(model, learned, X)
        assert run.guide["top"].density.score.requires_grad
        assert not downstream_costs(run)["top"].requires_grad

    def test_only_sites_with_a_score_have_a_signal(self, run_once):
        def program():
            pyro.sample("path", dist.Normal(0.0, 1.0))
            pyro.sample("score", dist.Bernoulli(0.5))

        assert set(downstream_costs(run_once(program, program))) == {"score"}


@pytest.mark.parametrize(
    ("plates", "expected"),
    [
        ({ROWS, COLUMNS}, lambda x: x),
        ({COLUMNS}, lambda x: x.sum(-2)),
        ({ROWS}, lambda x: x.sum(-1, keepdim=True)),
        (set(), lambda x: x.sum()),
    ],
    ids=["both", "columns", "rows", "none"],
)
def test_dimensions_outside_plates_are_summed(plates, expected):
    x = torch.arange(6.0).reshape(2, 3)
    found = sum_to_plates(x, frozenset(plates))
    assert found.shape == expected(x).shape
    assert torch.equal(found, expected(x))


class TestScores:
    @pytest.mark.parametrize("vectorized", [False, True])
    def test_particles_are_the_first_dimension(self, vectorized, run_once):
        if vectorized:
            runs = [trace_vectorized(ModelGuideCall(model, guide, (X,)), 4, 1, {})]
        else:
            runs = [run_once(model, guide, X) for _ in range(4)]
        found = score_function_terms(runs, vectorized)
        assert found["z"].log_prob.shape == found["z"].signal.shape == (4, 3)
        assert len(found["top"].signal) == found["top"].signal.numel() == 4
        assert found["z"].mask is None

    def test_particles_without_the_site_are_masked(self, run_once):
        def sometimes(draws):
            pyro.sample("always", dist.Bernoulli(0.5))
            if draws:
                pyro.sample("z", dist.Bernoulli(0.5))

        found = score_function_terms(
            [run_once(sometimes, sometimes, draws) for draws in (False, True, False)], vectorized=False
        )
        assert found["always"].mask is None
        assert found["z"].mask.tolist() == [False, True, False]
        assert found["z"].log_prob[[0, 2]].tolist() == [0, 0]
        assert found["z"].site.name == "z"

    def test_different_shapes_raise(self, run_once):
        def program(size):
            with pyro.plate("data", size):
                pyro.sample("z", dist.Bernoulli(torch.full((size,), 0.5)))

        runs = [run_once(program, program, size) for size in (2, 3)]
        with pytest.raises(ValueError, match=r"shape of site 'z' differs between particles: .*num_particles=1"):
            score_function_terms(runs, vectorized=False)
