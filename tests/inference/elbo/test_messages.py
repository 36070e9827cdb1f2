"""Messages about sites."""

import pyro.distributions as dist
import pytest
import torch

from zoo.inference.elbo._messages import describe_site, diagnose_parameters, diagnose_value, shared_control_flow_error

NAN = torch.tensor([1.0, torch.nan])


@pytest.mark.parametrize(
    ("distribution", "kind"),
    [
        (dist.Normal(0.0, 1.0), "Normal"),
        (dist.Bernoulli(torch.full((2, 3), 0.5)).to_event(1), "Bernoulli"),
        (dist.Poisson(1.0).mask(False).expand([4]), "Poisson"),
    ],
)
def test_site_is_described_with_its_innermost_distribution(distribution, kind):
    assert describe_site("z", distribution) == f"site 'z' ({kind})"


@pytest.mark.parametrize(
    ("distribution", "value", "observed", "sentence"),
    [
        (dist.Normal(0.0, 1.0), NAN, True, "the data of site 'z' (Normal) contain NaN"),
        (dist.Normal(0.0, 1.0), NAN, False, "the guide drew NaN at site 'z'"),
        (dist.Poisson(1.0), torch.tensor(-1.0), True, "lie outside the support of their distribution"),
        (dist.Gamma(1.0, 1.0), torch.tensor(-1.0), False, "outside the support of the model's site 'z' (Gamma)"),
    ],
)
def test_invalid_value_is_diagnosed(distribution, value, observed, sentence):
    assert sentence in diagnose_value("z", distribution, value, observed)


@pytest.mark.parametrize("observed", [True, False])
def test_valid_value_has_no_diagnosis(observed):
    assert diagnose_value("z", dist.Gamma(1.0, 1.0), torch.tensor(2.0), observed) is None


def test_wrong_shape_has_no_diagnosis():
    assert diagnose_value("z", dist.Dirichlet(torch.ones(3)), torch.ones(2) / 2, observed=True) is None


def test_nonfinite_parameter_of_nested_distribution_is_named():
    normal = dist.Normal(torch.tensor([0.0, torch.inf]), 1.0, validate_args=False).to_event(1)
    assert diagnose_parameters(normal) == "its loc is not finite"
    assert diagnose_parameters(dist.Normal(torch.zeros(2), 1.0).to_event(1)) is None


def test_control_flow_error_has_a_remedy():
    assert "vectorize_particles=False" in shared_control_flow_error("the values of 'z'")
