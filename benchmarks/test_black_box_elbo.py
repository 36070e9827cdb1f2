"""Time of a step of ``BlackBoxELBO`` and of ``model=sbn``, compared with Pyro's ``TraceGraph_ELBO``."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, TraceGraph_ELBO
from torch import nn
from training import medians

from zoo.inference.elbo import BlackBoxELBO
from zoo.inference.sbn import SigmoidBeliefNetwork
from zoo.training import tune_malloc

PIXELS, UNITS, BATCH = 784, 200, 100
MIN_SPEEDUP = {1: {"BlackBoxELBO": 1.5, "model=sbn": 3.0}, 10: {"BlackBoxELBO": 4.0, "model=sbn": 7.0}}


class BeliefNetwork(nn.Module):
    """Sigmoid belief network with one layer, as a program; ``name`` is the prefix of its parameters."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.inference_net, self.generative_net = nn.Linear(PIXELS, UNITS), nn.Linear(UNITS, PIXELS)

    def model(self, x):
        pyro.module(f"{self.name} generative", self.generative_net)
        prior = pyro.param(f"{self.name} prior", torch.zeros(UNITS))
        with pyro.plate("data", len(x)):
            h = pyro.sample("h", dist.Bernoulli(logits=prior.expand(len(x), UNITS)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.generative_net(h)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module(f"{self.name} inference", self.inference_net)
        with pyro.plate("data", len(x)):
            pyro.sample("h", dist.Bernoulli(logits=self.inference_net(x)).to_event(1))


def svi_step(name, elbo, x):
    """Return a function that does a training step with Pyro's SVI."""
    network = BeliefNetwork(name)
    svi = SVI(network.model, network.guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
    return lambda: svi.step(x)


def sbn_step(particles, x):
    """Return a function that does a training step of the same network without Pyro."""
    baseline = "leave_one_out" if particles > 1 else "moving_average"
    model = SigmoidBeliefNetwork((1, 28, 28), [UNITS], num_particles=particles, estimator={"baseline": baseline})
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)

    def step():
        optimizer.zero_grad()
        objective = model.objective(x)
        (objective.pathwise + objective.score).backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("particles", MIN_SPEEDUP)
def test_step_is_faster_than_a_step_of_pyro(particles, monkeypatch, measured):
    # After an import of Lightning, torch looks for a GPU driver in every optimizer step; zoo.training disables this.
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "0")
    tune_malloc()
    torch.manual_seed(0)
    x = (torch.rand(BATCH, PIXELS) < 0.13).float()
    at_once = {"vectorize_particles": True} if particles > 1 else {}
    calls = {
        "TraceGraph_ELBO": svi_step("theirs", TraceGraph_ELBO(particles), x),
        "BlackBoxELBO": svi_step("ours", BlackBoxELBO(particles, **at_once), x),
        "model=sbn": sbn_step(particles, x),
    }
    if at_once:
        vectorized = TraceGraph_ELBO(particles, max_plate_nesting=1, **at_once)
        calls["TraceGraph_ELBO, vectorized"] = svi_step("theirs, vectorized", vectorized, x)
    seconds = dict(zip(calls, medians(30, *calls.values()), strict=True))
    theirs = seconds.pop("TraceGraph_ELBO")
    many = "1 particle" if particles == 1 else f"{particles} particles"
    for name, taken in seconds.items():
        measured(f"a step of TraceGraph_ELBO, in units of one by {name}, {many}", theirs / taken)
    for name, speedup in MIN_SPEEDUP[particles].items():
        assert theirs / seconds[name] >= speedup, name
