import pytest
import torch
from pyro import poutine

from examples.patients import Guide, model


def sampled(trace):
    """Sites of a trace, without the subsamples of plates."""
    sites = {name: site for name, site in trace.nodes.items() if site["type"] == "sample"}
    return {name: site for name, site in sites.items() if not poutine.util.site_is_subsample(site)}


def test_subsample_is_scaled_to_all_patients(family, labs, factors, sites, joint):
    """The joint densities of all batches of one patient average to that of all patients."""
    every = sites(family, factors)
    patients = range(len(labs.values))
    batches = []
    for patient in patients:
        own = {name: value[..., [patient], :, :] for name, value in every.items() if name.startswith("states")}
        batches.append(joint(model, (family, labs, 1), {**every, **own, "patients": torch.tensor([patient])}))
    assert sum(batches) / len(patients) == pytest.approx(joint(model, (family, labs), every), rel=1e-10)


def test_model_and_guide_have_the_same_subsample(family, labs):
    torch.manual_seed(0)
    q = poutine.trace(Guide(family, labs)).get_trace(labs, 2)
    replayed = poutine.replay(lambda: model(family, labs, 2), trace=q)
    p = poutine.trace(replayed).get_trace()
    assert torch.equal(p.nodes["patients"]["value"], q.nodes["patients"]["value"])
    assert len(p.nodes["patients"]["value"]) == 2
    scales = {name: site["scale"] for name, site in sampled(q).items()}
    assert all(scale == (1.5 if name.startswith("states") else 1) for name, scale in scales.items())


def test_states_of_a_series_have_one_site_per_visit(family, labs):
    """Only so can its score be weighed with what it bears on: see the comment of the model."""
    trace = poutine.trace(model).get_trace(family, labs)
    plates = {
        name: [frame.name for frame in site["cond_indep_stack"]]
        for name, site in trace.nodes.items()
        if name.startswith("states")
    }
    assert len(plates) == (4 if family.series else 1)
    assert all(("visits" in frames) == (not family.series) for frames in plates.values())


def test_each_site_is_in_the_plates_of_its_indices(family, labs):
    trace = poutine.trace(model).get_trace(family, labs)
    shapes = {name: tuple(site["fn"].batch_shape) for name, site in sampled(trace).items()}
    assert shapes["weights"] == (2, 3)
    assert shapes["offsets"] == (3,)
    if family.series:
        assert shapes["states_3"] == (3, 2, 1)
        assert shapes["values_3"] == (3, 1, 3)
    else:
        assert shapes["states"] == (4, 3, 2, 1)
        assert shapes["values"] == (4, 3, 1, 3)
