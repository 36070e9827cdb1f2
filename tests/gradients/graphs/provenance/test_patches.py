"""Patched functions reach the trackers of their own thread, and are restored."""

import threading
from types import SimpleNamespace

import pytest

from zoo.gradients.graphs._provenance.patches import Patch, Patches


def double(x):
    return 2 * x


@pytest.fixture
def owner():
    return SimpleNamespace(double=double)


@pytest.fixture
def patches(owner):
    """Patches that record the calls that each tracker sees."""

    def follow(seen, call, args, kwargs):
        seen.append(args)
        return call(*args, **kwargs)

    return Patches([Patch(owner, "double", follow)])


def test_calls_pass_through_all_trackers_of_the_thread(owner, patches):
    outer, inner = [], []
    patches.enter(outer)
    patches.enter(inner)
    assert owner.double(3) == 6
    patches.leave()
    assert owner.double(x=4) == 8
    patches.leave()
    assert (outer, inner) == ([(3,), ()], [(3,)])


def test_call_in_another_thread_is_not_tracked(owner, patches):
    seen, results = [], []
    patches.enter(seen)
    thread = threading.Thread(target=lambda: results.append(owner.double(3)))
    thread.start()
    thread.join()
    patches.leave()
    assert (seen, results) == ([], [6])


def test_functions_are_restored_whichever_thread_ends_first(owner, patches):
    """A thread that restored what it had found would leave the replacement of an ended thread."""
    entered, ended = threading.Event(), threading.Event()

    def enter_first_and_leave_first():
        patches.enter([])
        entered.set()
        ended.wait(10)
        patches.leave()

    thread = threading.Thread(target=enter_first_and_leave_first)
    thread.start()
    entered.wait(10)
    patches.enter(seen := [])
    ended.set()
    thread.join()
    assert owner.double(3) == 6
    patches.leave()
    assert seen == [(3,)]
    assert owner.double is double


def test_tracker_stays_entered_after_an_error(owner, patches):
    patches.enter(seen := [])
    with pytest.raises(TypeError):
        owner.double()
    owner.double(1)
    patches.leave()
    assert seen == [(), (1,)]
