"""Small data for every program, and the joint density of a program at given values."""

import json
import math

import jaxtyping
import numpy as np
import pyro
import pytest
import torch
from pyro import poutine

from zoo.data.labs import PBC_LABS
from zoo.inference.programs import eight_schools, gaussian_mixture, hmm, kidiq


@pytest.fixture
def joint():
    """Log of the joint density of a model at values of its sites: ``joint(model, data, values)``."""

    def log_density(model, data, values) -> float:
        return poutine.trace(poutine.condition(model, values)).get_trace(*data).log_prob_sum().item()

    return log_density


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """A folder of data as ``$ZOO_DATA`` is, with a few rows for each program."""
    folder, noise = tmp_path_factory.mktemp("zoo_data"), np.random.default_rng(0)
    x = noise.normal(size=(12, 2))
    y = x @ [1.0, -1.0] + 0.3 * noise.normal(size=12)
    data = {
        eight_schools.POSTERIOR: ({"y": [28, 8, -3], "sigma": [15, 10, 16]}, 5),
        gaussian_mixture.POSTERIOR: ({"y": [-3.0, -2.5, 3.1, 2.2, -2.0]}, 5),
        hmm.POSTERIOR: ({"y": [3.1, 2.5, 9.0, 10.2, 9.5]}, 6),
        kidiq.POSTERIOR: ({"kid_score": [65, 98, 85, 83, 115], "mom_hs": [1, 1, 0, 1, 0]}, 3),
        "sblri-blr": ({"X": x.tolist(), "y": y.tolist()}, 3),
        "sblrc-blr": ({"X": x.tolist(), "y": y.tolist()}, 3),
    }
    for name, (content, quantities) in data.items():
        posterior = folder / "posteriordb" / name
        posterior.mkdir(parents=True)
        moments = {"names": [f"q[{i}]" for i in range(quantities)], "mcse_mean": [0.1] * quantities}
        (posterior / "data.json").write_text(json.dumps(content))
        (posterior / "mean.json").write_text(json.dumps({**moments, "mean_value": [0.0] * quantities}))
        (posterior / "mean_squared.json").write_text(json.dumps({**moments, "mean_squared_value": [1.0] * quantities}))
    write_labs(folder / "pbc" / "pbcseq.csv", noise)
    return folder


def write_labs(path, noise):
    """Seventy patients with one to three visits."""
    path.parent.mkdir()
    rows = [",".join(["id", "day", *PBC_LABS])]
    for patient in range(70):
        for visit in range(1 + patient % 3):
            labs = [math.exp(z) for z in noise.normal(size=len(PBC_LABS))]
            rows.append(",".join(map(str, [patient, 100 * visit, *labs])))
    path.write_text("\n".join(rows))


@pytest.fixture(autouse=True)
def own_parameters():
    """Nothing of a test stays in Pyro's store of parameters."""
    with pyro.get_param_store().scope():
        yield


@pytest.fixture
def double():
    """New tensors are of float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def directly(monkeypatch):
    """Calls go to the code at once, which is faster than with their types looked at."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(params=range(3))
def noise(request):
    return np.random.default_rng(request.param)


@pytest.fixture
def tensors():
    """Values of sites as tensors of float64."""
    return lambda **values: {name: torch.as_tensor(np.array(value)) for name, value in values.items()}
