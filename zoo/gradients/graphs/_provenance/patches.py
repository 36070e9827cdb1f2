import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Function = Callable[..., Any]


class Patch(NamedTuple):
    """A function that is replaced while programs are followed."""

    owner: Any
    name: str
    follow: Callable[[Any, Function, tuple[Any, ...], dict[str, Any]], Any]
    """Called in its place with whoever follows the program, the function itself and its arguments."""


class Patches:
    """Functions that are replaced as long as anyone, in any thread, follows a program.

    Calls reach those who follow a program in the same thread: the innermost, and the others from within it. They are
    replaced once for all threads and put back by the last, since threads need not end in the order in which they began.
    """

    def __init__(self, patches: Sequence[Patch]):
        self._replacements = [(patch.owner, patch.name, self._replacement(i, patch)) for i, patch in enumerate(patches)]
        self._originals: list[Function] = []
        self._lock = threading.Lock()
        self._uses = 0
        self._thread = threading.local()

    def enter(self, follower: object) -> None:
        """Let calls in this thread pass through a follower."""
        self._followers().append(follower)
        with self._lock:
            self._uses += 1
            if self._uses == 1:
                self._originals = [getattr(owner, name) for owner, name, _ in self._replacements]
                for owner, name, replacement in self._replacements:
                    setattr(owner, name, replacement)

    def leave(self) -> None:
        """Let calls in this thread pass by the follower that was entered last."""
        self._followers().pop()
        with self._lock:
            self._uses -= 1
            if self._uses == 0:
                for (owner, name, _), original in zip(self._replacements, self._originals, strict=True):
                    setattr(owner, name, original)

    def _followers(self) -> list[Any]:
        try:
            followers: list[Any] = self._thread.followers
        except AttributeError:
            followers = self._thread.followers = []
        return followers

    def _replacement(self, index: int, patch: Patch) -> Function:
        def call(*args: Any, **kwargs: Any) -> Any:
            followers = self._followers()
            if not followers:
                return self._originals[index](*args, **kwargs)
            innermost = followers.pop()
            try:
                return patch.follow(innermost, call if followers else self._originals[index], args, kwargs)
            finally:
                followers.append(innermost)

        call.__name__ = patch.name
        return call
