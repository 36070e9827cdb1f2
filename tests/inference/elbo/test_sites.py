"""Sample statements and runs."""

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


def test_plate_nesting_counts_plates(run_once):
    assert plate_nesting(run_once(lambda: None, lambda: None)) == 0
    assert plate_nesting(run_once(plated(), plated())) == 1


def test_plate_nesting_counts_batch_dimensions_without_plate(run_once):
    assert plate_nesting(run_once(plated((2,)), plated((2,)))) == 2


def test_all_sites_are_in_sampling_order(run_once):
    run = run_once(plated(), plated())
    found = [(where, site.name) for where, site in all_sites([run, run])]
    assert found == 2 * [("guide", "top"), ("guide", "z"), ("model", "top"), ("model", "z")]


def test_dependencies_are_those_of_the_program(run_once):
    _, of_model = run_once(plated(), plated()).dependencies()
    assert [dict(reach).keys() for reach in of_model] == [{"top"}, {"z"}]
