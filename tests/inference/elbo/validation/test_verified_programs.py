"""Verified programs are recognized, and not kept alive."""

import functools
import pickle
import weakref

import pytest
import torch
from torch import nn

from zoo.inference.elbo._validation.programs import MAX_VERIFIED_PROGRAMS, VerifiedPrograms, program_key


class Network(nn.Module):
    def model(self):
        """A program."""


def closure(*held):
    return lambda: held


def recursive():
    def program():
        return program

    return program


NETWORK = Network()


@pytest.mark.parametrize(
    "make",
    [
        lambda: NETWORK.model,
        lambda: NETWORK,
        lambda: closure(NETWORK, 3, "name", None, closure),
        lambda: closure(torch.randn(3), 0.1),
        lambda: functools.partial(closure, NETWORK, flag=True),
        lambda: functools.partial(NETWORK.model, torch.randn(2)),
        recursive,
    ],
)
def test_program_created_again_is_equal(make):
    assert program_key(make()) == program_key(make())
    assert hash(program_key(make())) == hash(program_key(make()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NETWORK.model, Network().model),
        (NETWORK.model, NETWORK),
        (closure(1), closure(2)),
        (closure(True), closure(1)),
        (closure(NETWORK), closure(Network())),
        (closure(closure), closure(recursive)),
        (functools.partial(closure, flag=True), functools.partial(closure, flag=False)),
        (lambda: 0, lambda: 0),
    ],
)
def test_program_with_other_references_differs(one, other):
    assert program_key(one) != program_key(other)


class Program:
    """A program that is freed when the last reference is deleted."""

    def __call__(self):
        """A program."""


def test_program_at_the_address_of_a_freed_one_differs():
    """Python reuses freed addresses, so some of many objects have an earlier address."""
    programs, addresses, reused = VerifiedPrograms(), set(), 0
    for _ in range(200):
        program = Program()
        reused += id(program) in addresses
        assert (program, NETWORK) not in programs
        programs.add(program, NETWORK)
        addresses.add(id(program))
        del program
    assert reused > 10


def test_programs_are_not_kept_alive():
    programs, program = VerifiedPrograms(), Program()
    programs.add(program.__call__, closure(program))
    gone = weakref.ref(program)
    del program
    assert gone() is None


def test_oldest_programs_are_forgotten():
    programs = VerifiedPrograms()
    for i in range(MAX_VERIFIED_PROGRAMS + 1):
        programs.add(closure(i), NETWORK)
    assert (closure(0), NETWORK) not in programs
    assert (closure(MAX_VERIFIED_PROGRAMS), NETWORK) in programs


def test_pickled_copy_is_empty():
    programs = VerifiedPrograms()
    programs.add(NETWORK, NETWORK)
    assert (NETWORK, NETWORK) not in pickle.loads(pickle.dumps(programs))
