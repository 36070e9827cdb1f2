import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Patch(NamedTuple):
    """A function that is replaced while a tracker is entered."""

    owner: Any
    name: str
    wrapper: Callable[[Any, Function, tuple[Any, ...], dict[str, Any]], Any]
    """Called in its place, with the tracker, the original function and its arguments."""


class Patches:
    """Functions that are replaced while any thread has entered a tracker.

    A call reaches the innermost tracker of its own thread, and the outer ones from within its wrapper. Functions are
    replaced once for all threads and restored by the last to leave, since threads need not end in the order in which
    they began.
    """

    def __init__(self, patches: Sequence[Patch]):
        self._replacements = [(patch.owner, patch.name, self._replacement(i, patch)) for i, patch in enumerate(patches)]
        self._originals: list[Function] = []
        self._lock = threading.Lock()
        self._uses = 0
        self._thread = threading.local()

    def enter(self, tracker: object) -> None:
        """Route calls in this thread through a tracker."""
        self._trackers().append(tracker)
        with self._lock:
            self._uses += 1
            if self._uses == 1:
                self._originals = [getattr(owner, name) for owner, name, _ in self._replacements]
                for owner, name, replacement in self._replacements:
                    setattr(owner, name, replacement)

    def leave(self) -> None:
        """Undo the last ``enter`` of this thread."""
        self._trackers().pop()
        with self._lock:
            self._uses -= 1
            if self._uses == 0:
                for (owner, name, _), original in zip(self._replacements, self._originals, strict=True):
                    setattr(owner, name, original)

    def _trackers(self) -> list[Any]:
        try:
            trackers: list[Any] = self._thread.trackers
        except AttributeError:
            trackers = self._thread.trackers = []
        return trackers

    def _replacement(self, index: int, patch: Patch) -> Function:
        def call(*args: Any, **kwargs: Any) -> Any:
            trackers = self._trackers()
            if not trackers:
                return self._originals[index](*args, **kwargs)
            innermost = trackers.pop()
            try:
                return patch.wrapper(innermost, call if trackers else self._originals[index], args, kwargs)
            finally:
                trackers.append(innermost)

        call.__name__ = patch.name
        return call
