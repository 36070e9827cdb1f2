"""Shadow memory: names are stored for each storage, since tensors that share memory share their names."""

from typing import Any
from weakref import ref

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance import torch_internals as internals
from zoo.gradients.graphs._provenance.names import GRADIENT_LABELS, NO_NAMES, Names, quote_names
from zoo.gradients.graphs._provenance.torch_internals import StorageWeakRef, data_address, is_wrapped, storage_address

Address = int | None
State = tuple[Address, object]
"""Address of the storage of a tensor, and its version counter."""
_Geometry = tuple[int | torch.SymInt, torch.Size, tuple[int, ...]]
_MIN_GC_THRESHOLD = 10_000  # entries of a table; if there are more, those of freed memory are removed


class ShadowMemory:
    """Names of every marked storage, and of views that have more names than their storage."""

    def __init__(self) -> None:
        # StorageWeakRef lets the memory be freed, but keeps the storage object, so that its address is not reused.
        self.storages: dict[Address, tuple[Any, Names]] = {}
        self.views = _ViewNames()
        self._by_pointer: dict[int, Address] = {}
        self._exposed: dict[Address, Any] = {}
        self._gc_threshold = _MIN_GC_THRESHOLD

    def names_of(self, tensors: list[Tensor], states: list[State], control_dependencies: set[str]) -> Names:
        """Return the names of tensors; raise an error if one is an untracked alias of marked memory.

        No error is raised if the control flow depends on the names already: they then influence everything anyway.
        """
        found, views = NO_NAMES, self.views.by_storage
        for tensor, (address, _) in zip(tensors, states, strict=True):
            if address in self.storages:
                _, names = self.storages[address]
                found = found | names if found else names
            elif address is not None and (pointer := _data_pointer(tensor)) in self._by_pointer:
                # An untracked export (e.g. DLPack) was re-imported: a new storage aliases marked memory.
                reference, names = self.storages[self._by_pointer[pointer]]
                if not reference.expired():
                    if exposed := names - GRADIENT_LABELS - control_dependencies:
                        raise_untrackable("__dlpack__", exposed)
                    found |= names
            if views and address in views:
                found |= self.views.names_of(tensor, address)
        return found

    def mark(self, tensor: Tensor, address: Address, names: Names) -> bool:
        """Add names to a storage; return whether untracked code can read it: control flow may then depend on them."""
        if address in self.storages:
            reference, present = self.storages[address]
            self.storages[address] = (reference, present | names)
        else:
            self.storages[address] = (StorageWeakRef(storage_of(tensor, names)), names)
            if pointer := _data_pointer(tensor):
                self._by_pointer[pointer] = address
            if len(self.storages) > self._gc_threshold:
                self._collect_garbage()
        return address in self._exposed

    def mark_view(self, tensor: Tensor, address: Address, names: Names, sources: list[Tensor]) -> None:
        """Add names to a view of the same storage as ``sources``, the arguments that it was computed from."""
        _, names_of_storage = self.storages.get(address, (None, NO_NAMES))
        if names <= names_of_storage:
            if address in self.views.by_storage:
                self.views.register(tensor)
            return
        for source in sources:
            if source is not tensor:
                self.views.freeze(source, address)
        self.views.mark(tensor, address, names)

    def record_exposed(self, tensor: Tensor, address: Address) -> None:
        """Record that untracked code can read a storage, which matters once a marked value is written to it."""
        self._exposed[address] = StorageWeakRef(storage_of(tensor))

    def _collect_garbage(self) -> None:
        self.storages = {address: entry for address, entry in self.storages.items() if not entry[0].expired()}
        self._by_pointer = {
            pointer: address for pointer, address in self._by_pointer.items() if address in self.storages
        }
        self.views.collect_garbage()
        self._gc_threshold = 2 * len(self.storages) + _MIN_GC_THRESHOLD


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
        # By id, with a weak reference that detects a reused id: much faster than torch's WeakIdKeyDictionary.
        self._by_object: dict[int, tuple[ref[Tensor], Names]] = {}
        self._gc_threshold = _MIN_GC_THRESHOLD

    def names_of(self, tensor: Tensor, address: Address) -> Names:
        """Return the names of a tensor whose storage, at ``address``, has marked views."""
        tensor = unwrap(tensor)
        names = self._names_of_object(tensor)
        return self.by_storage[address][1].get(_geometry(tensor), NO_NAMES) if names is None else names

    def mark(self, tensor: Tensor, address: Address, names: Names) -> None:
        """Add names to a view that a tracked function returned."""
        if address not in self.by_storage:
            self.by_storage[address] = StorageWeakRef(storage_of(tensor)), {}
        tensor, by_geometry = unwrap(tensor), self.by_storage[address][1]
        geometry = _geometry(tensor)
        if not names <= (present := by_geometry.get(geometry, NO_NAMES)):
            by_geometry[geometry] = present | names
        own = self._names_of_object(tensor)
        self._set(tensor, own | names if own else names)

    def freeze(self, tensor: Tensor, address: Address) -> None:
        """Store the present names of an object, so that marking other views of its storage does not change them."""
        if self._names_of_object(tensor := unwrap(tensor)) is None:
            self._set(tensor, self.names_of(tensor, address) if address in self.by_storage else NO_NAMES)

    def register(self, tensor: Tensor) -> None:
        """Store an object that a tracked function returned, without names unless it has some already."""
        if self._names_of_object(tensor := unwrap(tensor)) is None:
            self._set(tensor, NO_NAMES)

    def collect_garbage(self) -> None:
        self.by_storage = {address: entry for address, entry in self.by_storage.items() if not entry[0].expired()}
        self._by_object = {key: entry for key, entry in self._by_object.items() if entry[0]() is not None}
        self._gc_threshold = 2 * len(self._by_object) + _MIN_GC_THRESHOLD

    def _names_of_object(self, tensor: Tensor) -> Names | None:
        entry = self._by_object.get(id(tensor))
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _set(self, tensor: Tensor, names: Names) -> None:
        self._by_object[id(tensor)] = ref(tensor), names
        if len(self._by_object) > self._gc_threshold:
            self.collect_garbage()


def _geometry(tensor: Tensor) -> _Geometry:
    """Return offset, shape and strides of a tensor, which determine the part of its storage that it views."""
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def address_of(tensor: Tensor) -> Address:
    """Return the address of a tensor's storage object; None for a tensor without storage, such as a sparse one."""
    try:
        return storage_address(tensor)
    except NotImplementedError:
        return address_of(unwrap(tensor)) if is_wrapped(tensor) else None


def _data_pointer(tensor: Tensor) -> int:
    """Return the address of the first element of a tensor that has a storage; 0 if the tensor is empty."""
    try:
        return data_address(tensor)
    except NotImplementedError:
        return _data_pointer(unwrap(tensor))


def states(tensors: list[Tensor]) -> list[State]:
    """Return the state of each tensor; an inference tensor has no version counter, and a new state at each call."""
    try:
        return [(storage_address(tensor), tensor._version) for tensor in tensors]
    except RuntimeError:
        return [(address_of(tensor), object() if tensor.is_inference() else tensor._version) for tensor in tensors]


def storage_of(tensor: Tensor, names: Names = NO_NAMES) -> torch.UntypedStorage:
    """Return the storage of a tensor; if there is none, raise an error that contains ``names``."""
    try:
        with internals.untracked():  # also by outer modes
            return tensor.untyped_storage()
    except NotImplementedError:
        if is_wrapped(tensor):
            return storage_of(unwrap(tensor), names)
        raise ValueError(
            f"a tensor that depends on {quote_names(names - GRADIENT_LABELS)} has no storage, like all sparse tensors, "
            "and cannot be tracked; use dense tensors"
        ) from None


def unwrap(tensor: Tensor) -> Tensor:
    """Return the tensor inside the wrappers of torch.func."""
    while is_wrapped(tensor):
        tensor = internals.get_unwrapped(tensor)
    return tensor


def is_no_grad_view(tensor: Tensor) -> bool:
    """Return whether a tensor is a view, created under ``no_grad``, of a tensor that requires a gradient.

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
