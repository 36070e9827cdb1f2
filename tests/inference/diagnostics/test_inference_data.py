import math
import sys
from types import ModuleType

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from zoo.inference.diagnostics import elbo_estimate, fit_pareto_k, sample_posterior, to_inference_data


@pytest.fixture
def draws(normals):
    return sample_posterior(normals.model, normals.guide, num_samples=500, log_likelihood=True)


@pytest.fixture
def convert(monkeypatch):
    """``to_inference_data`` with an ArviZ that returns the groups and attributes it is called with."""
    module = ModuleType("arviz")
    module.__version__ = "1.0.0"
    module.from_dict = lambda groups, attrs: (groups, attrs["posterior"])
    monkeypatch.setitem(sys.modules, "arviz", module)
    return to_inference_data


def test_groups_have_one_chain_and_data_none(draws, normals, convert):
    groups, _ = convert(draws)
    assert {name: {each: x.shape for each, x in group.items()} for name, group in groups.items()} == {
        "posterior": {"z": (1, 500)},
        "sample_stats": {"lp": (1, 500), "lq": (1, 500)},
        "log_likelihood": {"x": (1, 500, 4)},
        "observed_data": {"x": (4,)},
    }
    np.testing.assert_array_equal(groups["posterior"]["z"][0], draws.sites["z"].numpy())
    np.testing.assert_array_equal(groups["observed_data"]["x"], normals.x.numpy())
    np.testing.assert_array_equal(groups["sample_stats"]["lp"] - groups["sample_stats"]["lq"], [draws.log_weights])


def test_empty_groups_are_omitted(normals, convert):
    groups, _ = convert(sample_posterior(normals.model, normals.guide, num_samples=5))
    assert "log_likelihood" not in groups


def test_attributes_contain_method_elbo_and_k_hat(draws, convert):
    _, found = convert(draws, "BBVI")
    estimate = elbo_estimate(draws)
    assert found["method"] == "BBVI"
    assert (found["elbo"], found["elbo_se"]) == (estimate.value, estimate.standard_error)
    assert found["khat"] == fit_pareto_k(draws.log_weights).value
    assert math.isnan(convert(draws._replace(subsampled=True))[1]["khat"])


class TestWithArviz:
    def test_inference_data_contains_samples_densities_and_attributes(self, draws):
        arviz = pytest.importorskip("arviz")
        data = to_inference_data(draws)
        assert data.posterior["z"].dims == ("chain", "draw")
        np.testing.assert_array_equal(data.posterior["z"].values[0], draws.sites["z"].numpy())
        np.testing.assert_array_equal(data.sample_stats["lq"].values[0], draws.log_q.numpy())
        assert data.observed_data["x"].shape == (4,)
        assert data.log_likelihood["x"].shape == (1, 500, 4)
        assert data.posterior.attrs["method"] == data.attrs["method"] == "black-box variational inference"
        assert data.posterior.attrs["khat"] == pytest.approx(fit_pareto_k(draws.log_weights).value)
        assert arviz.summary(data, kind="stats", round_to="none")["mean"]["z"] == pytest.approx(0.2, abs=0.15)

    def test_inference_data_can_be_saved_as_netcdf(self, draws, tmp_path):
        arviz = pytest.importorskip("arviz")
        to_inference_data(draws).to_netcdf(str(tmp_path / "fit.nc"))
        again = arviz.from_netcdf(str(tmp_path / "fit.nc"))
        np.testing.assert_array_equal(again.posterior["z"].values[0], draws.sites["z"].numpy())

    def test_a_site_called_like_a_dimension_of_its_own_keeps_its_shape(self):
        pytest.importorskip("arviz")

        def model():
            with pyro.plate("units", 3):
                pyro.sample("unit", dist.Normal(torch.zeros(3), 1.0))

        assert to_inference_data(sample_posterior(model, model, num_samples=4)).posterior["unit"].shape == (1, 4, 3)


class TestDispatchByVersion:
    """ArviZ 1 answers to ``InferenceData`` by a module-level ``__getattr__``, with a warning."""

    @pytest.fixture
    def arviz(self, monkeypatch):
        module = ModuleType("arviz")
        module.InferenceData = object
        module.calls = []
        module.from_dict = lambda *args, **kwargs: module.calls.append((args, set(kwargs)))
        monkeypatch.setitem(sys.modules, "arviz", module)
        return module

    @pytest.mark.parametrize("version", ["1.1.0", "1.3.0", "2.0.0rc1"])
    def test_groups_are_passed_as_one_nested_dict_from_arviz_1_on(self, arviz, draws, version):
        arviz.__version__ = version
        to_inference_data(draws)
        ((groups,), options) = arviz.calls[0]
        assert set(groups) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
        assert options == {"attrs"}

    @pytest.mark.parametrize("version", ["0.17.0", "0.23.4"])
    def test_groups_are_passed_as_keyword_arguments_up_to_arviz_0(self, arviz, draws, version):
        arviz.__version__ = version
        to_inference_data(draws)
        (positional, options) = arviz.calls[0]
        assert positional == ()
        assert {"posterior", "sample_stats", "posterior_attrs"} <= options


def test_missing_arviz_raises_with_install_command(draws, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"^to_inference_data needs ArviZ, which is not installed: pip install"):
        to_inference_data(draws)
