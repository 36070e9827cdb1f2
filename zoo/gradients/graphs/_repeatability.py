import ctypes
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader

from zoo.gradients.graphs._provenance.patches import Function, Patch, Patches

MERSENNE_TWISTER = 625 * 4
"""Bytes of its state: 624 words, and a position among them."""


class GeneratorStates:
    """States of the global random number generators of torch, Python and, if it is in use, NumPy, at one moment."""

    def __init__(self) -> None:
        devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        self.of_torch = [torch.get_rng_state(), *devices]
        # Functions that beartype checks draw from Python's, too.
        self.others = (None if "beartype" in sys.modules else random.getstate(), numpy_state(sys.modules.get("numpy")))

    def have_moved(self) -> bool:
        """Tell whether one of them was drawn from since."""
        now = GeneratorStates()
        return self.others != now.others or not all(map(torch.equal, self.of_torch, now.of_torch))


def numpy_state(numpy: Any) -> Any:
    """Return the state of NumPy's global generator: of the usual kind by a look into its memory, which is quick."""
    if numpy is None:
        return None
    generator = numpy.random.get_bit_generator()
    if type(generator) is numpy.random.MT19937:
        return ctypes.string_at(generator.ctypes.state_address, MERSENNE_TWISTER)
    return repr(generator.state)


@contextmanager
def loader_seeds_undrawn() -> Iterator[None]:
    """Undo what a ``DataLoader`` without workers draws when it is iterated over: a seed that it does not use.

    What its sampler draws comes later, and stays. Loaders of other threads are left alone.
    """
    _iterations.enter(None)
    try:
        yield
    finally:
        _iterations.leave()


def _iterate(_: object, iterate: Function, args: tuple[DataLoader[Any]], kwargs: dict[str, Any]) -> Any:
    (loader,) = args
    before = torch.get_rng_state()
    iterator = iterate(loader)
    if loader.num_workers == 0 and loader.generator is None:
        after = torch.get_rng_state()
        torch.set_rng_state(before)
        torch.empty((), dtype=torch.int64, device="cpu").random_()
        only_the_seed = torch.equal(after, torch.get_rng_state())
        torch.set_rng_state(before if only_the_seed else after)
    return iterator


_iterations = Patches([Patch(DataLoader, "__iter__", _iterate)])
