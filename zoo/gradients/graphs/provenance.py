from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from zoo.gradients.graphs.escapes import METADATA, tensors_in, told

Names = frozenset[str]
NOTHING: Names = frozenset()

# What looks at its first argument's shape alone.
LIKE_THE_FIRST = {
    *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_empty", "new_full"),
}
ONE_BY_ONE = {"broadcast_tensors", "meshgrid", "atleast_1d", "atleast_2d", "atleast_3d"}  # a result views one argument
WRITE_UNTOLD = {"batch_norm", "instance_norm"}  # to running statistics, without counting it
UNSEEN = {"__dlpack__", "data_ptr", "storage", "untyped_storage", "share_memory_"}
ARRAYS = {"numpy", "__array__"}


class Provenance(TorchFunctionMode):
    """Knows, while it is entered, which named values every tensor was computed from.

    Every torch function passes here. What it returns was computed from all that its arguments were computed from;
    what it writes to, too, together with all that shares its memory. A value that is turned into a Python object
    (``item``, ``bool``, an index, an array) or into a shape (the number of non-zero elements, a slice) may steer
    whatever comes later: its names are added to ``escaped``. Torch does not show ``torch.utils.dlpack.to_dlpack``.

    Raises:
        ValueError: memory of a marked tensor is handed to where it cannot be followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.escaped = NOTHING
        # A weak reference lets memory go, but keeps its address from being given to another.
        self._storages: dict[int | None, tuple[StorageWeakRef, Names]] = {}
        self._exposed: dict[int, StorageWeakRef] = {}
        # Of views that were computed from more than the memory they show, and of what has no storage.
        self._tensors = WeakTensorKeyDictionary()

    def of(self, value: Any) -> Names:
        """Names of what a value, or the tensors in it, were computed from."""
        with untracked():
            return self._of(tensors_in(value))

    def mark(self, tensor: Tensor, names: Iterable[str]) -> None:
        """Note that a tensor, and all that shares its memory, was computed from named values."""
        with untracked():
            self._mark(tensor, frozenset(names))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a torch function, and note what its results were computed from."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in METADATA:
            return func(*args, **kwargs)
        with untracked():  # by others, too, that were entered before
            given = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
            names = self._of(given)
            if names:
                refuse_the_unseen(name, names)
            elif name in UNSEEN or name in ARRAYS:
                self._expose(given)
            before = [state(tensor) for tensor in given] if names else []
        result = func(*args, **kwargs)
        if names:
            with untracked():
                self.escaped |= self._of(told(name, args, kwargs, result))
                for tensor, earlier in zip(given, before, strict=True):
                    if state(tensor) != earlier or (name in WRITE_UNTOLD and not tensor.requires_grad):
                        self._mark(tensor, names)
                self._mark_results(name, given, names, tensors_in(result))
        return result

    def _of(self, tensors: Iterable[Tensor]) -> Names:
        found = NOTHING
        for tensor in tensors:
            if known := self._storages.get(address(tensor)):
                found |= known[1]
            if self._tensors:
                found |= self._tensors.get(tensor, NOTHING)
        return found

    def _mark(self, tensor: Tensor, names: Names) -> None:
        storage = storage_of(tensor)
        if storage is None:
            self._mark_view(tensor, names)
            return
        reference, known = self._storages.get(storage._cdata) or (StorageWeakRef(storage), NOTHING)
        self._storages[storage._cdata] = (reference, known | names)
        if storage._cdata in self._exposed:
            self.escaped |= names

    def _mark_view(self, tensor: Tensor, names: Names) -> None:
        if not names <= (known := self._of([tensor])):
            self._tensors[tensor] = known | names

    def _mark_results(self, name: str, given: list[Tensor], names: Names, results: list[Tensor]) -> None:
        if name in LIKE_THE_FIRST:
            names = self._of(given[1:])
        for tensor in results:
            place = address(tensor)
            viewed = [other for other in given if address(other) == place is not None]
            if not viewed or is_wrapped(tensor):  # a wrapper is thrown away, its memory stays
                self._mark(tensor, names)
            else:  # the memory itself was computed from less
                self._mark_view(tensor, self._of(viewed) if name in ONE_BY_ONE else names)

    def _expose(self, tensors: list[Tensor]) -> None:
        """Remember whose memory others can read: harmless until something marked is written there."""
        storages = [storage for tensor in tensors if (storage := storage_of(tensor)) is not None]
        self._exposed |= {storage._cdata: StorageWeakRef(storage) for storage in storages}


def untracked() -> AbstractContextManager[Any]:
    """Let torch functions pass unseen."""
    return torch._C.DisableTorchFunction()


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """Find the memory of a tensor; None where it has none of its own, as a sparse one."""
    try:
        return tensor.untyped_storage()
    except NotImplementedError:
        return storage_of(torch._C._functorch.get_unwrapped(tensor)) if is_wrapped(tensor) else None


def is_wrapped(tensor: Tensor) -> bool:
    """Tell whether torch.func (vmap, grad, …) stands between a tensor and its memory."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def address(tensor: Tensor) -> int | None:
    """Identify the memory of a tensor."""
    storage = storage_of(tensor)
    return None if storage is None else storage._cdata


def state(tensor: Tensor) -> tuple[int | None, int]:
    """Tell where a tensor's values are, and how often they were written to; an inference tensor never is."""
    return address(tensor), 0 if tensor.is_inference() else tensor._version


def refuse_the_unseen(name: str, names: Names) -> None:
    """Raise an error if a torch function takes values to where they cannot be followed."""
    if name in UNSEEN:
        raise ValueError(
            f"{name} hands the memory of {listed(names)} to where it cannot be followed; copy the values with "
            "tolist() or numpy() instead"
        )
    if name == "backward":
        raise ValueError(
            f"backward leaves gradients that depend on {listed(names)} where they cannot be followed; take them from "
            "torch.autograd.grad instead"
        )


def listed(names: Iterable[str]) -> str:
    """Write names for a message."""
    return ", ".join(repr(name) for name in sorted(names))
