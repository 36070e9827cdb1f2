import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from zoo.gradients.graphs.escapes import tensors_in, told, within_a_check
from zoo.gradients.graphs.functions import WRITE_STATISTICS, Kind, kind_of
from zoo.gradients.graphs.scripts import replaces_attributes, run, scripts_through, state_of, tells

# In C, as these are asked of every tensor that passes.
storage_address = torch._C._storage_address  # type: ignore[attr-defined]
data_address = torch._C._data_address  # type: ignore[attr-defined]
CONSTRAINTS = vars(torch.distributions.constraints)
Names = frozenset[str]
NOTHING: Names = frozenset()
Place = int | None
State = tuple[Place, int]


class Provenance(TorchFunctionMode):
    """Knows, while it is entered, which named values every tensor was computed from.

    Every torch function passes here. What it returns was computed from all that its arguments were computed from;
    what it writes to, too, together with all that shares its memory. A value that is turned into a Python object
    (``item``, ``bool``, an index, an array), into a shape (the number of non-zero elements, a slice) or into an error
    may steer whatever comes later: its names are added to ``escaped``. So are those of what is written to memory that
    others share, such as an array's. A call of TorchScript counts as one function of its arguments and of the
    buffers of its module. What other threads do cannot be seen.

    Raises:
        ValueError: memory of a marked tensor is handed to where it cannot be followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.escaped = NOTHING
        self._scripts = ExitStack()
        # A weak reference lets memory go, but keeps its address from being given to another.
        self._storages: dict[Place, tuple[StorageWeakRef, Names]] = {}
        self._pointers: dict[int, Place] = {}
        self._room = 10_000
        self._exposed: dict[Place, StorageWeakRef] = {}
        # Of views that were computed from more than the memory they show.
        self._views = WeakTensorKeyDictionary()

    def __enter__(self) -> "Provenance":
        self._scripts.enter_context(scripts_through(self._follow_script))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._scripts.close()

    def of(self, value: Any) -> Names:
        """Names of what a value, or the tensors in it, were computed from."""
        tensors = tensors_in(value)
        return self._of(tensors, [(address(tensor), 0) for tensor in tensors])

    def escape(self, names: Names) -> None:
        """Note that values became Python objects."""
        self.escaped |= names

    def mark(self, tensor: Tensor, names: Iterable[str]) -> None:
        """Note that a tensor, and all that shares its memory, was computed from named values and no others."""
        self._storages.pop(address(tensor), None)
        self._mark(tensor, frozenset(names))

    def paused(self) -> AbstractContextManager[Any]:
        """Follow nothing for a while; unless there is another mode, which is to miss nothing."""
        return untracked() if torch._C._len_torch_function_stack() == 1 else nullcontext()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a torch function, and note what its results were computed from."""
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.harmless or (sys._getframe(1).f_globals is CONSTRAINTS and within_a_check()):
            return func(*args, **kwargs)
        given = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        before = states(given)
        names = self._of(given, before)
        if not names:
            if kind.unseen:
                self._expose(given)
            return func(*args, **kwargs)
        if kind.unseen:
            refuse_the_unseen(kind.name, names)
        try:
            result = func(*args, **kwargs)
        except Exception:
            self.escape(names)
            raise
        if (kind.tells or not isinstance(result, Tensor)) and (looked_at := self.of(told(func, args, kwargs, result))):
            self.escape(looked_at)
        if (after := states(given)) != before or kind.writes_untold:
            self._mark_written(kind, names, given, before, after)
        self._mark_results(kind, names, given, before, result)
        return result

    def _follow_script(
        self, call: Callable[..., Any], script: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        with untracked():  # as torch does it when it comes here
            state = state_of(script)
            names = self.of((args, kwargs, state))
            if names and replaces_attributes(script):
                refuse_the_unseen("a module of TorchScript that keeps what it is given", names)
            result = self.__torch_function__(run, (), (call, script, args, kwargs, state))
            if tells(result):
                self.escape(names)
        return result

    def _of(self, tensors: list[Tensor], states: list[State]) -> Names:
        found = NOTHING
        for tensor, (place, _) in zip(tensors, states, strict=True):
            if place in self._storages:
                _, names = self._storages[place]
                found = found | names if found else names
            elif place is not None and pointer(tensor) in self._pointers:
                self._refuse_an_alias(tensor)
        if self._views.data:
            found = found.union(*(self._views.get(tensor, NOTHING) for tensor in tensors))
        return found

    def _mark(self, tensor: Tensor, names: Names) -> None:
        place = address(tensor)
        if place in self._storages:
            reference, known = self._storages[place]
            self._storages[place] = (reference, known | names)
        else:
            self._storages[place] = (StorageWeakRef(storage_of(tensor, names)), names)
            if begin := pointer(tensor):
                self._pointers[begin] = place
            if len(self._storages) > self._room:
                self._forget_the_dead()
        if place in self._exposed:
            self.escape(names)

    def _mark_view(self, tensor: Tensor, names: Names) -> None:
        if not names <= (known := self.of(tensor)):
            self._views[tensor] = known | names

    def _mark_written(
        self, kind: Kind, names: Names, given: list[Tensor], before: list[State], after: list[State]
    ) -> None:
        for tensor, earlier, now in zip(given, before, after, strict=True):
            learned = kind.name.startswith(WRITE_STATISTICS) and tensor.requires_grad
            if now != earlier or (kind.writes_untold and not learned):
                self._mark(tensor, names)
                if not storage_of(tensor, names).resizable():  # but an array's, say
                    self.escape(names)

    def _mark_results(self, kind: Kind, names: Names, given: list[Tensor], before: list[State], result: Any) -> None:
        if kind.like_the_first:
            names = self._of(given[1:], before[1:])
        places = [place for place, _ in before]
        for tensor in (result,) if isinstance(result, Tensor) else tensors_in(result):
            place = address(tensor)
            if place not in places or is_wrapped(tensor):  # a wrapper is thrown away, its memory stays
                self._mark(tensor, names)
            elif kind.one_by_one:
                self._mark_view(tensor, self.of([t for t, there in zip(given, places, strict=True) if there == place]))
            else:  # the memory itself was computed from less
                self._mark_view(tensor, names)

    def _expose(self, tensors: list[Tensor]) -> None:
        """Remember whose memory others can read: harmless until something marked is written there."""
        for tensor in tensors:
            self._exposed[address(tensor)] = StorageWeakRef(storage_of(tensor))

    def _refuse_an_alias(self, tensor: Tensor) -> None:
        """Raise an error for memory that was handed around where it was not seen, and has come back."""
        reference, names = self._storages[self._pointers[pointer(tensor)]]
        if not reference.expired() and not names <= self.escaped:
            refuse_the_unseen("__dlpack__", names)

    def _forget_the_dead(self) -> None:
        self._storages = {place: kept for place, kept in self._storages.items() if not kept[0].expired()}
        self._pointers = {pointer: place for pointer, place in self._pointers.items() if place in self._storages}
        self._room = 2 * len(self._storages) + 10_000


def untracked() -> AbstractContextManager[Any]:
    """Let torch functions pass unseen."""
    return torch._C.DisableTorchFunction()


def states(tensors: list[Tensor]) -> list[State]:
    """Tell where tensors' values are, and how often they were written to; an inference tensor never is."""
    try:
        return [(storage_address(tensor), tensor._version) for tensor in tensors]
    except RuntimeError:
        return [(address(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def address(tensor: Tensor) -> Place:
    """Identify the memory of a tensor; None where it has none of its own, as a sparse one."""
    try:
        return storage_address(tensor)
    except NotImplementedError:
        return address(torch._C._functorch.get_unwrapped(tensor)) if is_wrapped(tensor) else None


def pointer(tensor: Tensor) -> int:
    """Tell where the memory of a tensor that has an address begins; 0 if it has no elements."""
    try:
        return data_address(tensor)
    except NotImplementedError:
        return pointer(torch._C._functorch.get_unwrapped(tensor))


def is_wrapped(tensor: Tensor) -> bool:
    """Tell whether torch.func (vmap, grad, …) stands between a tensor and its memory."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def storage_of(tensor: Tensor, names: Names = NOTHING) -> torch.UntypedStorage:
    """Find the memory of a tensor that was computed from named values."""
    try:
        with untracked():  # by others, too, that were entered before
            return tensor.untyped_storage()
    except NotImplementedError:
        if is_wrapped(tensor):
            return storage_of(torch._C._functorch.get_unwrapped(tensor), names)
        raise ValueError(
            f"a tensor of {listed(names)} has no memory of its own, as sparse ones have not, and cannot be followed; "
            "use dense ones"
        ) from None


def refuse_the_unseen(name: str, names: Names) -> None:
    """Raise an error if a torch function takes values to where they cannot be followed."""
    if name != "backward":
        raise ValueError(
            f"{name} hands the memory of {listed(names)} to where it cannot be followed; copy the values with "
            "tolist() or numpy() instead"
        )
    raise ValueError(
        f"backward leaves gradients that depend on {listed(names)} where they cannot be followed; take them from "
        "torch.autograd.grad instead"
    )


def listed(names: Iterable[str]) -> str:
    """Write names for a message."""
    return ", ".join(repr(name) for name in sorted(names))
