import ctypes
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from zoo.gradients.graphs._provenance.patches import Function, Patch, Patches

_MT19937_STATE_BYTES = 625 * 4  # 624 words and a position
_lock = threading.RLock()  # no other thread sees the state between the draw of a loader's seed and its restoration


class GeneratorStates:
    """Snapshot of the global random number generators of torch, Python and, if it is loaded, NumPy."""

    def __init__(self) -> None:
        with _lock:
            devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
            self.torch_states = [torch.get_rng_state(), *devices]
        # Functions checked by beartype draw from Python's generator, too.
        python = None if "beartype" in sys.modules else random.getstate()
        self.other_states = (python, _numpy_state(sys.modules.get("numpy")))

    def have_advanced(self) -> bool:
        """Return whether any generator has been drawn from since."""
        now = GeneratorStates()
        return self.other_states != now.other_states or not all(map(torch.equal, self.torch_states, now.torch_states))


def _numpy_state(numpy: Any) -> Any:
    """Return the state of NumPy's global generator; read from memory for the default kind, which is fast."""
    if numpy is None:
        return None
    generator = numpy.random.get_bit_generator()
    if type(generator) is numpy.random.MT19937:
        return ctypes.string_at(generator.ctypes.state_address, _MT19937_STATE_BYTES)
    return repr(generator.state)


@contextmanager
def undo_unused_loader_seeds() -> Iterator[None]:
    """Restore torch's generator after each ``DataLoader`` without workers has drawn a seed, which it does not use.

    Other draws are kept: those of the loader's sampler, which come later, and those of loaders in other threads.
    """
    _loader_patch.enter(None)
    try:
        yield
    finally:
        _loader_patch.leave()


def _iterate(_: object, iterate: Function, args: tuple[DataLoader[Any]], kwargs: dict[str, Any]) -> Any:
    (loader,) = args
    if loader.num_workers or loader.generator is not None:
        return iterate(loader)
    with _lock:
        before = torch.get_rng_state()
        iterator = iterate(loader)
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        torch.empty((), dtype=torch.int64, device="cpu").random_()
        only_the_seed = torch.equal(after, torch.get_rng_state())
        torch.set_rng_state(before if only_the_seed else after)
    return iterator


_loader_patch = Patches([Patch(DataLoader, "__iter__", _iterate)])
