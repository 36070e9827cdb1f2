from collections.abc import Iterable

Names = frozenset[str]
"""Names of the random variables that a value was computed from: its taint labels."""
NO_NAMES: Names = frozenset()


class _Label(str):
    """A taint label that is no sample's name; compared by identity, so that it does not equal a sample of this name."""

    __eq__, __hash__ = object.__eq__, object.__hash__


NO_GRAD: Names = frozenset([_Label("<no_grad>")])
"""The tensor was computed under no_grad from a tensor that requires a gradient."""
NO_GRAD_VIEW: Names = frozenset([_Label("<no_grad view>")])
"""The tensor was computed, outside of no_grad, from a view that was created under no_grad."""
GRADIENT_LABELS = NO_GRAD | NO_GRAD_VIEW


def quote_names(names: Iterable[str]) -> str:
    """Return names in quotes, sorted and separated by commas, for a message."""
    return ", ".join(repr(name) for name in sorted(names))
