"""Depth-first enumeration of paths: each once, up to a maximum."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo.gradients.graphs._paths import MIN_PATHS_TO_ESTIMATE, DeadEndError, enumerate_paths

MESSAGES = ("it changed its mind", "ask for less")
TREES = st.recursive(st.just(None), lambda tree: st.lists(tree, min_size=1, max_size=3), max_leaves=20)


def leaves(tree, way=()):
    """Ways to all ends of a nested list."""
    return [way] if tree is None else [leaf for k, branch in enumerate(tree) for leaf in leaves(branch, (*way, k))]


def follow(tree):
    """Descend a nested list along a path."""

    def run(path):
        way, here = (), tree
        while here is not None:
            way = (*way, path.choose(str(len(way)), len(here)))
            here = here[way[-1]]
        return way

    return run


def dead_beyond(*ways):
    def run(path):
        way = ()
        while len(way) < 3:
            way = (*way, path.choose("bit", 2))
            if way in ways:
                raise DeadEndError
        return way

    return run


@given(TREES)
def test_every_leaf_is_visited_once_depth_first(tree):
    assert list(enumerate_paths(follow(tree), 20, *MESSAGES)) == leaves(tree)


def test_dead_ends_are_skipped():
    found = list(enumerate_paths(dead_beyond((0,), (1, 1, 0)), 10, *MESSAGES))
    assert found == [(1, 0, 0), (1, 0, 1), (1, 1, 1)]
    assert list(enumerate_paths(dead_beyond((0,), (1,)), 10, *MESSAGES)) == []


def test_dead_ends_count_toward_max_outcomes():
    assert len(list(enumerate_paths(dead_beyond((0,)), 5, *MESSAGES))) == 4
    with pytest.raises(ValueError, match=r"there are more than 4 outcomes: .* 8, 2 \(bit\).*; ask for less"):
        list(enumerate_paths(dead_beyond((0,)), 4, *MESSAGES))


def test_large_tree_fails_early_after_max_stalled_paths():
    def bits(path):
        return [path.choose(f"x{k}", 2) for k in range(12)]

    found = enumerate_paths(bits, 4000, *MESSAGES)
    assert len(list(itertools.islice(found, MIN_PATHS_TO_ESTIMATE - 1))) == MIN_PATHS_TO_ESTIMATE - 1
    with pytest.raises(ValueError, match=r"may be more than 4000 outcomes: .* there are 4096, 2 \(x0\) · .* · …;"):
        next(found)
    assert len(list(enumerate_paths(bits, 4096, *MESSAGES))) == 4096


@pytest.mark.parametrize("change", ["size", "name", "length", "randomness"])
def test_choices_that_change_raise_an_error(change):
    calls = 0

    def run(path):
        nonlocal calls
        calls += 1
        changed = calls == 2
        path.choose("other" if change == "name" and changed else "first", 3 if change == "size" and changed else 2)
        if not (change == "length" and changed):
            path.choose("second", 2)
        if change == "randomness" and changed:
            torch.rand(())

    with pytest.raises(ValueError, match="it changed its mind"):
        list(enumerate_paths(run, 10, *MESSAGES))
    assert calls == 2


def test_dead_end_is_not_an_exception():
    assert not issubclass(DeadEndError, Exception)
