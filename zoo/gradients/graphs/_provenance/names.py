from collections.abc import Iterable

Names = frozenset[str]
"""Names of the random variables that a value was computed from: its taint labels."""
NO_NAMES: Names = frozenset()


class _Mark(str):
    """A mark among the names of a tensor; compared by identity, so that it equals no name of a sample."""

    __eq__, __hash__ = object.__eq__, object.__hash__


NO_GRAD: Names = frozenset([_Mark("<no_grad>")])
"""The tensor was computed under no_grad from a tensor that requires a gradient."""
NO_GRAD_VIEW: Names = frozenset([_Mark("<no_grad view>")])
"""The tensor was computed, outside of no_grad, from a view that was created under no_grad."""
GRADIENT_MARKS = NO_GRAD | NO_GRAD_VIEW


def quote_names(names: Iterable[str]) -> str:
    """Return names in quotes, sorted and separated by commas, for a message."""
    return ", ".join(repr(name) for name in sorted(names))
