"""A torch version without a name that the tracker uses is refused when a program is tracked, not at import."""

import importlib
import tomllib
from pathlib import Path

import pytest
import torch
from torch.distributions import Bernoulli

from zoo.gradients.graphs import trace
from zoo.gradients.graphs._provenance import torch_internals


def program(graph):
    graph.cost("f", graph.sample("x", Bernoulli(torch.tensor(0.5))))


@pytest.fixture
def reloaded(monkeypatch):
    """Reload the module after a change of torch, and once more when the change is undone."""
    yield lambda: importlib.reload(torch_internals)
    monkeypatch.undo()
    importlib.reload(torch_internals)
    trace(program)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        *((torch._C, "_storage_address"), (torch._C, "ScriptMethod"), (torch._C._functorch, "get_unwrapped")),
        *((torch.library, "_impls"), (torch._C, "_nested")),
    ],
)
def test_missing_name_is_refused_in_a_sentence_with_the_version(reloaded, monkeypatch, owner, name):
    monkeypatch.delattr(owner, name)
    reloaded()
    with pytest.raises(RuntimeError, match=rf"torch {torch.__version__[:4]}.* lacks torch\..*{name}; install") as error:
        trace(program)
    assert "\n" not in str(error.value)


def test_older_version_than_the_package_requires_is_refused(reloaded, monkeypatch):
    monkeypatch.setattr(torch_internals.torch, "__version__", type(torch.__version__)("2.5.1"))
    reloaded()
    with pytest.raises(RuntimeError, match=r"torch 2\.5\.1 is too old; install a version from 2\.6 to"):
        trace(program)


def test_version_range_is_that_of_the_package():
    folder = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
    dependencies = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"torch>={torch_internals.OLDEST}" in dependencies
    assert torch.__version__ < torch_internals.NEWEST_TESTED + ".99"
