from weakref import ref

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance.names import NO_NAMES, Names
from zoo.gradients.graphs._provenance.storages import Address, storage_of, unwrap
from zoo.gradients.graphs._provenance.torch_internals import StorageWeakRef

_Geometry = tuple[int | torch.SymInt, torch.Size, tuple[int, ...]]


class ViewNames:
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
        self._gc_threshold = 10_000

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
        self._gc_threshold = 2 * len(self._by_object) + 10_000

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
