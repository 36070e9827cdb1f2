"""Names of tensors, kept by the memory that they share, in the manner of a shadow memory."""

from typing import Any
from weakref import ref

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance import torch_internals as internals
from zoo.gradients.graphs._provenance.names import GRADIENT_MARKS, NO_NAMES, Names, quote_names
from zoo.gradients.graphs._provenance.torch_internals import StorageWeakRef, data_address, is_wrapped, storage_address

Address = int | None
State = tuple[Address, object]
"""Address of the storage of a tensor, and its version counter."""
_Geometry = tuple[int | torch.SymInt, torch.Size, tuple[int, ...]]
_MIN_SIZE = 10_000  # of a table before entries of freed memory are removed, which is repeated when it has doubled


class ShadowMemory:
    """Names of every marked storage, and of views that have more names than their storage."""

    def __init__(self) -> None:
        # A weak reference frees the memory, but keeps its address from being reused.
        self.storages: dict[Address, tuple[Any, Names]] = {}
        self.views = _ViewNames()
        self._by_pointer: dict[int, Address] = {}
        self._exposed: dict[Address, Any] = {}
        self._gc_threshold = _MIN_SIZE

    def of(self, tensors: list[Tensor], states: list[State], control_dependencies: set[str]) -> Names:
        """Return the names of tensors; raise an error for an untracked alias, unless these are control dependencies."""
        found, views = NO_NAMES, self.views.by_storage
        for tensor, (place, _) in zip(tensors, states, strict=True):
            if place in self.storages:
                _, names = self.storages[place]
                found = found | names if found else names
            elif place is not None and (pointer := _data_pointer(tensor)) in self._by_pointer:
                # An untracked export (e.g. DLPack) was re-imported: a new storage aliases marked memory.
                reference, names = self.storages[self._by_pointer[pointer]]
                if not reference.expired():
                    if exposed := names - GRADIENT_MARKS - control_dependencies:
                        raise_untrackable("__dlpack__", exposed)
                    found |= names
            if views and place in views:
                found |= self.views.of(tensor, place)
        return found

    def mark(self, tensor: Tensor, place: Address, names: Names) -> bool:
        """Add names to a storage; return whether it is exposed, so that control flow may depend on them."""
        if place in self.storages:
            reference, present = self.storages[place]
            self.storages[place] = (reference, present | names)
        else:
            self.storages[place] = (StorageWeakRef(storage_of(tensor, names)), names)
            if pointer := _data_pointer(tensor):
                self._by_pointer[pointer] = place
            if len(self.storages) > self._gc_threshold:
                self._collect_garbage()
        return place in self._exposed

    def mark_view(self, tensor: Tensor, place: Address, names: Names, sources: list[Tensor]) -> None:
        """Add names to a view of the same storage as ``sources``, the arguments that it was computed from."""
        _, names_of_storage = self.storages.get(place, (None, NO_NAMES))
        if names <= names_of_storage:
            if place in self.views.by_storage:
                self.views.set_default(tensor)
            return
        for source in sources:
            if source is not tensor:
                self.views.freeze(source, place)
        self.views.mark(tensor, place, names)

    def expose(self, tensor: Tensor, place: Address) -> None:
        """Record that untracked code can read a storage; harmless until a marked value is written to it."""
        self._exposed[place] = StorageWeakRef(storage_of(tensor))

    def _collect_garbage(self) -> None:
        self.storages = {place: kept for place, kept in self.storages.items() if not kept[0].expired()}
        self._by_pointer = {pointer: place for pointer, place in self._by_pointer.items() if place in self.storages}
        self.views.collect_garbage()
        self._gc_threshold = 2 * len(self.storages) + _MIN_SIZE


class _ViewNames:
    """Names of views that depend on more than their storage does, such as ``table[x]``.

    ``table[x]`` depends on ``x``, but its memory does not: ``table[0]`` beside it is independent of ``x``. The names
    therefore belong to the Python object of the view. But torch also wraps the same values in new objects without
    calling a function that the tracker sees: ``nn.Parameter``, a subclass, the arguments of ``torch.func.grad``. An
    object that no tracked function returned therefore has the names of all marked views with the same offset, shape
    and strides.
    """

    def __init__(self) -> None:
        self.by_storage: dict[Address, tuple[StorageWeakRef, dict[_Geometry, Names]]] = {}
        # By id, with a weak reference that detects a reused id: much faster than torch's own weak dictionaries.
        self._by_object: dict[int, tuple[ref[Tensor], Names]] = {}
        self._gc_threshold = _MIN_SIZE

    def of(self, tensor: Tensor, place: Address) -> Names:
        """Return the names of a tensor whose storage, at ``place``, has marked views."""
        tensor = unwrap(tensor)
        names = self._of_object(tensor)
        return self.by_storage[place][1].get(_geometry(tensor), NO_NAMES) if names is None else names

    def mark(self, tensor: Tensor, place: Address, names: Names) -> None:
        """Add names to a view that a tracked function returned."""
        if place not in self.by_storage:
            self.by_storage[place] = StorageWeakRef(storage_of(tensor)), {}
        tensor, parts = unwrap(tensor), self.by_storage[place][1]
        part = _geometry(tensor)
        if not names <= (present := parts.get(part, NO_NAMES)):
            parts[part] = present | names
        own = self._of_object(tensor)
        self._set(tensor, own | names if own else names)

    def freeze(self, tensor: Tensor, place: Address) -> None:
        """Fix the names of an object to its present ones, whichever views of its storage are marked later."""
        if self._of_object(tensor := unwrap(tensor)) is None:
            self._set(tensor, self.of(tensor, place) if place in self.by_storage else NO_NAMES)

    def set_default(self, tensor: Tensor) -> None:
        """Record that an object has no names, unless it has some already."""
        if self._of_object(tensor := unwrap(tensor)) is None:
            self._set(tensor, NO_NAMES)

    def collect_garbage(self) -> None:
        self.by_storage = {place: kept for place, kept in self.by_storage.items() if not kept[0].expired()}
        self._by_object = {key: kept for key, kept in self._by_object.items() if kept[0]() is not None}
        self._gc_threshold = 2 * len(self._by_object) + _MIN_SIZE

    def _of_object(self, tensor: Tensor) -> Names | None:
        kept = self._by_object.get(id(tensor))
        return kept[1] if kept is not None and kept[0]() is tensor else None

    def _set(self, tensor: Tensor, names: Names) -> None:
        self._by_object[id(tensor)] = ref(tensor), names
        if len(self._by_object) > self._gc_threshold:
            self.collect_garbage()


def _geometry(tensor: Tensor) -> _Geometry:
    """Return which part of its storage a tensor is a view of."""
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def address(tensor: Tensor) -> Address:
    """Return the address of a tensor's storage object; None if it has none, as a sparse tensor."""
    try:
        return storage_address(tensor)
    except NotImplementedError:
        return address(unwrap(tensor)) if is_wrapped(tensor) else None


def _data_pointer(tensor: Tensor) -> int:
    """Return the first byte of the memory of a tensor with an address; 0 if it has no elements."""
    try:
        return data_address(tensor)
    except NotImplementedError:
        return _data_pointer(unwrap(tensor))


def states(tensors: list[Tensor]) -> list[State]:
    """Return the state of each tensor; always a new one for inference tensors, which track no version counter."""
    try:
        return [(storage_address(tensor), tensor._version) for tensor in tensors]
    except RuntimeError:
        return [(address(tensor), object() if tensor.is_inference() else tensor._version) for tensor in tensors]


def storage_of(tensor: Tensor, names: Names = NO_NAMES) -> torch.UntypedStorage:
    """Return the storage of a tensor; an error for one without storage contains ``names``."""
    try:
        with internals.untracked():  # also by outer modes
            return tensor.untyped_storage()
    except NotImplementedError:
        if is_wrapped(tensor):
            return storage_of(unwrap(tensor), names)
        raise ValueError(
            f"a tensor of {quote_names(names - GRADIENT_MARKS)} has no storage (as sparse tensors) and cannot be "
            "tracked; use dense tensors"
        ) from None


def unwrap(tensor: Tensor) -> Tensor:
    """Return the tensor inside the wrappers of torch.func."""
    while is_wrapped(tensor):
        tensor = internals.get_unwrapped(tensor)
    return tensor


def is_no_grad_view(tensor: Tensor) -> bool:
    """Return whether a tensor is a view, made while gradients were disabled, of one that requires a gradient.

    Its ``requires_grad`` is True, but it is a leaf where the backward pass ends.
    """
    if not (tensor.requires_grad and tensor._is_view() and tensor._base.requires_grad):  # type: ignore[union-attr]
        return False
    try:
        return tensor.is_leaf
    except RuntimeError:  # it was written to in place since, and has no gradient at all
        return True


def raise_untrackable(name: str, names: Names) -> None:
    """Raise an error for a torch function that exposes values where they cannot be tracked."""
    if name == "backward":
        raise ValueError(
            f"backward stores gradients that depend on {quote_names(names)} where they cannot be tracked; use "
            "torch.autograd.grad instead"
        )
    raise ValueError(
        f"{name} exposes the memory of {quote_names(names)} where it cannot be tracked; copy the values with tolist() "
        "or numpy() instead"
    )
