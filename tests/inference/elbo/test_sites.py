"""What is known of a sample statement, and of a run."""

import pyro
import pyro.distributions as dist
import torch

from zoo.inference.elbo._sites import all_sites, plate_nesting


def plated(undeclared=()):
    def program():
        pyro.sample("top", dist.Bernoulli(0.5))
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Bernoulli(torch.full((*undeclared, 3), 0.5)))

    return program


def test_a_run_nests_as_deep_as_its_plates(recorded):
    assert plate_nesting(recorded(lambda: None, lambda: None)) == 0
    assert plate_nesting(recorded(plated(), plated())) == 1


def test_or_as_its_batches_that_no_plate_declares(recorded):
    assert plate_nesting(recorded(plated((2,)), plated((2,)))) == 2


def test_sites_are_gone_through_as_they_were_sampled(recorded):
    run = recorded(plated(), plated())
    found = [(where, site.name) for where, site in all_sites([run, run])]
    assert found == 2 * [("guide", "top"), ("guide", "z"), ("model", "top"), ("model", "z")]


def test_influence_is_that_of_the_program(recorded):
    _, of_model = recorded(plated(), plated()).dependencies()
    assert [dict(reach).keys() for reach in of_model] == [{"top"}, {"z"}]
