"""Calls of TorchScript, which no torch function mode sees, are tracked."""

import threading

import pytest
import torch
from torch import nn

from zoo.gradients.graphs._provenance.provenance import Provenance
from zoo.gradients.graphs._provenance.torch_internals import untracked

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")  # deprecated, but still in use


def tripled(x: torch.Tensor) -> torch.Tensor:
    return 3 * x


def total(x: torch.Tensor) -> float:
    return float(x.sum())


def total_beside_a_tensor(x: torch.Tensor) -> tuple[torch.Tensor, float]:
    return 2 * x, float(x.sum())


def listed_beside_a_tensor(x: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
    values: list[float] = x.tolist()
    return 2 * x, values


def branching_on_a_list(x: torch.Tensor) -> torch.Tensor:
    values: list[float] = x.tolist()
    return torch.zeros(1) if values[0] > 0 else torch.ones(1)


def overwrite(x: torch.Tensor, y: torch.Tensor) -> None:
    x.copy_(y)


@pytest.fixture(autouse=True)
def unhandled_errors(monkeypatch):
    """Treat errors as unhandled, although pytest handles them."""
    monkeypatch.setattr("zoo.gradients.graphs._provenance.provenance.error_is_handled", lambda frame: False)


@pytest.fixture
def marked():
    """A tracker with one marked tensor."""
    provenance, x = Provenance(), torch.ones(1)
    provenance.set_names(x, {"x"})
    return provenance, x


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(tripled),
        lambda: torch.jit.trace(tripled, torch.ones(1)),
        lambda: torch.jit.script(nn.Linear(1, 1)),
        lambda: torch.jit.trace(nn.Linear(1, 1), torch.ones(1)),
    ],
    ids=["a scripted function", "a traced one", "a scripted module", "a traced one "],
)
def test_results_of_a_script_have_the_names_of_its_arguments(make, marked):
    (provenance, x), script = marked, make()
    with provenance:
        assert provenance.names_of(script(x)) == {"x"}
        assert provenance.names_of(script(torch.zeros(1))) == frozenset()
    assert provenance.control_dependencies == frozenset()


@pytest.mark.parametrize("function", [total, total_beside_a_tensor, listed_beside_a_tensor, branching_on_a_list])
def test_number_returned_by_a_script_is_a_control_dependency(function, marked):
    (provenance, x), script = marked, torch.jit.script(function)
    with provenance:
        script(x)
    assert provenance.control_dependencies == {"x"}


class Keeper(nn.Module):
    """Stores its argument, in place or by assignment."""

    kept: torch.Tensor

    def __init__(self):
        super().__init__()
        self.kept = torch.zeros(1)
        self.register_buffer("written", torch.zeros(1))

    @torch.jit.export
    def put(self, x: torch.Tensor):
        self.kept = 2 * x

    @torch.jit.export
    def write(self, x: torch.Tensor):
        self.written.copy_(x)

    def forward(self) -> torch.Tensor:
        return self.written + 1


def test_writes_to_buffers_are_tracked(marked):
    (provenance, x), keeper = marked, torch.jit.script(Keeper())
    with provenance:
        assert provenance.names_of(keeper()) == frozenset()
        keeper.write(x)
        assert provenance.names_of(keeper()) == provenance.names_of(keeper.written) == {"x"}


def test_assignment_to_attributes_is_tracked(marked):
    (provenance, x), keeper = marked, torch.jit.script(Keeper())
    with provenance:
        keeper.put(torch.zeros(1))
        assert provenance.names_of(keeper.kept) == frozenset()
        keeper.put(x)
        assert provenance.names_of(keeper.kept) == {"x"}
    assert provenance.control_dependencies == frozenset()


def test_argument_written_in_place_is_marked(marked):
    (provenance, x), script, written = marked, torch.jit.script(overwrite), torch.zeros(1)
    with provenance:
        script(written, x)
    assert provenance.names_of(written) == {"x"}


def test_script_in_a_thread_is_tracked(marked):
    (provenance, x), script, results = marked, torch.jit.script(tripled), []
    with provenance:
        thread = threading.Thread(target=lambda: results.append(script(x)))
        thread.start()
        thread.join()
    assert provenance.names_of(results) == {"x"}


def test_script_is_not_tracked_with_modes_disabled_nor_after_an_error(marked):
    (provenance, x), script = marked, torch.jit.script(tripled)

    def call_and_fail():
        with provenance:
            with untracked():
                assert script(x) == 3
            raise KeyError

    with pytest.raises(KeyError):
        call_and_fail()
    assert provenance.names_of(script(x)) == frozenset()
