from collections.abc import Iterable

Names = frozenset[str]
"""Names of the random variables that a value was computed from: its taint labels."""
NO_NAMES: Names = frozenset()


def quote_names(names: Iterable[str]) -> str:
    """Return names in quotes, sorted and separated by commas, for a message."""
    return ", ".join(repr(name) for name in sorted(names))
