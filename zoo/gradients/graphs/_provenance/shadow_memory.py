from typing import Any

from torch import Tensor

from zoo.gradients.graphs._provenance.names import GRADIENT_MARKS, NO_NAMES, Names, quote_names
from zoo.gradients.graphs._provenance.storages import Address, State, data_pointer, storage_of
from zoo.gradients.graphs._provenance.torch_internals import StorageWeakRef
from zoo.gradients.graphs._provenance.views import ViewNames


class ShadowMemory:
    """Names of every marked storage, and of views that have more names than their storage."""

    def __init__(self) -> None:
        # A weak reference frees the memory, but keeps its address from being reused.
        self.storages: dict[Address, tuple[Any, Names]] = {}
        self.views = ViewNames()
        self._by_pointer: dict[int, Address] = {}
        self._exposed: dict[Address, Any] = {}
        self._gc_threshold = 10_000

    def of(self, tensors: list[Tensor], states: list[State], control_dependencies: set[str]) -> Names:
        """Return the names of tensors; raise an error for an untracked alias, unless these are control dependencies."""
        found, views = NO_NAMES, self.views.by_storage
        for tensor, (place, _) in zip(tensors, states, strict=True):
            if place in self.storages:
                _, names = self.storages[place]
                found = found | names if found else names
            elif place is not None and (pointer := data_pointer(tensor)) in self._by_pointer:
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
            if pointer := data_pointer(tensor):
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
        self._gc_threshold = 2 * len(self.storages) + 10_000


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
