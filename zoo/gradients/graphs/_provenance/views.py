from collections.abc import Callable
from weakref import ref

import torch
from torch import Tensor, UntypedStorage
from torch.multiprocessing.reductions import StorageWeakRef

from zoo.gradients.graphs._provenance.names import NO_NAMES, Names

Place = int | None
is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor
"""Tells whether torch.func (vmap, grad, …) stands between a tensor and its memory."""
Geometry = tuple[int | torch.SymInt, torch.Size, tuple[int, ...]]


class ViewNames:
    """Names of views that were computed from more than the memory they show, such as ``table[x]``.

    The names of such a view belong to its Python object, since ``table[0]`` beside it was computed from less. But torch
    also wraps the same values in new objects where no function is seen: ``nn.Parameter``, a subclass, the arguments of
    ``torch.func.grad``. An object that no seen function returned therefore has the names of all marked views with the
    same offset, shape and strides.
    """

    def __init__(self) -> None:
        self.by_storage: dict[Place, tuple[StorageWeakRef, dict[Geometry, Names]]] = {}
        # By the object's identity, with a reference that tells whether it is still the same: unlike torch's own weak
        # dictionaries it costs next to nothing.
        self._by_object: dict[int, tuple[ref[Tensor], Names]] = {}
        self._room = 10_000

    def of(self, tensor: Tensor, place: Place) -> Names:
        """Return the names of a tensor whose storage, at ``place``, has marked views."""
        tensor = unwrap(tensor)
        names = self._of_object(tensor)
        return self.by_storage[place][1].get(geometry(tensor), NO_NAMES) if names is None else names

    def mark(self, tensor: Tensor, place: Place, names: Names, storage: Callable[[Tensor], UntypedStorage]) -> None:
        """Add names to a view that a seen function returned; its storage is asked for where it is not known yet."""
        if place not in self.by_storage:
            self.by_storage[place] = StorageWeakRef(storage(tensor)), {}
        tensor, parts = unwrap(tensor), self.by_storage[place][1]
        part = geometry(tensor)
        if not names <= (known := parts.get(part, NO_NAMES)):
            parts[part] = known | names
        own = self._of_object(tensor)
        self._note(tensor, own | names if own else names)

    def keep(self, tensor: Tensor, place: Place) -> None:
        """Note that an object has the names it has now and no others, whatever part of its storage is marked."""
        if self._of_object(tensor := unwrap(tensor)) is None:
            self._note(tensor, self.of(tensor, place) if place in self.by_storage else NO_NAMES)

    def keep_apart(self, tensor: Tensor) -> None:
        """Note that an object has no names, unless it has some already."""
        if self._of_object(tensor := unwrap(tensor)) is None:
            self._note(tensor, NO_NAMES)

    def forget_the_dead(self) -> None:
        """Drop storages and objects that are gone."""
        self.by_storage = {place: kept for place, kept in self.by_storage.items() if not kept[0].expired()}
        self._by_object = {key: kept for key, kept in self._by_object.items() if kept[0]() is not None}
        self._room = 2 * len(self._by_object) + 10_000

    def _of_object(self, tensor: Tensor) -> Names | None:
        kept = self._by_object.get(id(tensor))
        return kept[1] if kept is not None and kept[0]() is tensor else None

    def _note(self, tensor: Tensor, names: Names) -> None:
        self._by_object[id(tensor)] = ref(tensor), names
        if len(self._by_object) > self._room:
            self.forget_the_dead()


def geometry(tensor: Tensor) -> Geometry:
    """Return which part of its storage a tensor shows."""
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def unwrap(tensor: Tensor) -> Tensor:
    """Return the tensor inside the wrappers of torch.func."""
    while is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def is_no_grad_view(tensor: Tensor) -> bool:
    """Return whether a tensor is a view, made where gradients were off, of one that needs a gradient.

    It says ``requires_grad=True``, but is a leaf, and what flows back ends there.
    """
    if not (tensor.requires_grad and tensor._is_view() and tensor._base.requires_grad):  # type: ignore[union-attr]
        return False
    try:
        return tensor.is_leaf
    except RuntimeError:  # it was written to since, and has no gradient at all
        return True
