import pytest
import torch

from zoo.data._posteriordb import ReferenceMoments
from zoo.inference._posterior_moments import element_quantities, moments, moments_table, named_quantities


@pytest.fixture
def reference():
    """Means 1 and 10, standard deviations 2 and 3."""
    mean, zero = torch.tensor([1.0, 10.0], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    return ReferenceMoments(("a", "b"), mean, zero, mean.square() + torch.tensor([4.0, 9.0], dtype=torch.float64), zero)


@pytest.fixture
def draws():
    return {"a": torch.tensor([1.0, 3.0]).double(), "b": torch.tensor([4.0, 4.0]).double()}


def test_quantities_get_the_names_of_the_reference_in_its_order():
    found = named_quantities(
        {"z": torch.tensor([1.0, 2.0])}, lambda sites: torch.stack([sites["z"], -sites["z"]], 1), "ab"
    )
    assert {name: x.tolist() for name, x in found.items()} == {"a": [1, 2], "b": [-1, -2]}


def test_elements_of_sites_are_named_by_their_indices():
    sites = {"tau": torch.arange(2), "beta": torch.arange(12).reshape(2, 3, 2)}
    found, count = element_quantities(sites, max_quantities=4)
    assert count == 7
    assert {name: x.tolist() for name, x in found.items()} == {
        "tau": [0, 1],
        "beta[0,0]": [0, 6],
        "beta[0,1]": [1, 7],
        "beta[1,0]": [2, 8],
    }


def test_moments_include_those_of_reference(draws, reference):
    metrics = moments(draws, reference)
    assert (metrics["mean_a"], metrics["sd_a"], metrics["sd_b"]) == (2, 1, 0)
    assert (metrics["reference_mean_b"], metrics["reference_sd_b"]) == (10, 3)
    assert metrics["reference_mean_gap"] == 2
    assert (metrics["reference_sd_ratio_low"], metrics["reference_sd_ratio_high"]) == (0, 0.5)


def test_nan_samples_are_ignored():
    assert moments({"a": torch.tensor([1.0, torch.nan, 3.0]).double()}, None) == {"mean_a": 2, "sd_a": 1}


def test_the_table_has_a_line_for_each_quantity(draws, reference):
    assert moments_table(moments(draws, reference)) == [
        "     guide  reference  distance",
        "  a  2 (1)      1 (2)   0.50 sd",
        "  b  4 (0)     10 (3)   2.00 sd",
    ]


class TestCategories:
    def test_categories_have_probabilities_instead_of_mean(self):
        found, count = element_quantities({"kind": torch.tensor([[0, 2], [2, 2]])}, 20, {"kind": 3})
        assert count == 6
        metrics = moments(found, None)
        assert [metrics[f"mean_kind[0]={k}"] for k in range(3)] == [0.5, 0, 0.5]
        assert [metrics[f"mean_kind[1]={k}"] for k in range(3)] == [0, 0, 1]
        assert metrics["sd_kind[0]=2"] == 0.5
        assert "mean_kind[0]" not in metrics

    def test_category_probabilities_ignore_samples_without_site(self):
        found, _ = element_quantities({"kind": torch.tensor([1.0, torch.nan, 0.0, torch.nan])}, 20, {"kind": 2})
        assert moments(found, None)["mean_kind=1"] == 0.5
