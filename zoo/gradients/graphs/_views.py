import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

Names = frozenset[str]
NOTHING: Names = frozenset()
Geometry = tuple[int | torch.SymInt, torch.Size, tuple[int, ...]]


class ViewNames:
    """Names of views that were computed from more than the memory they show, such as ``table[x]``.

    The names of such a view belong to its Python object, since ``table[0]`` beside it was computed from less. But torch
    also wraps the same values in new objects where no function is seen: ``nn.Parameter``, a subclass, the arguments of
    ``torch.func.grad``. An object that no seen function returned therefore has the names of all marked views with the
    same offset, shape and strides.
    """

    def __init__(self) -> None:
        self.by_storage: dict[int | None, tuple[StorageWeakRef, dict[Geometry, Names]]] = {}
        self._by_object = WeakTensorKeyDictionary()

    def of(self, tensor: Tensor, place: int | None) -> Names:
        """Return the names of a tensor whose storage, at ``place``, has marked views."""
        tensor = unwrap(tensor)
        names: Names | None = self._by_object.get(tensor)
        return self.by_storage[place][1].get(geometry(tensor), NOTHING) if names is None else names

    def mark(self, tensor: Tensor, place: int | None, storage: StorageWeakRef, names: Names) -> None:
        """Add names to a view that a seen function returned."""
        tensor = unwrap(tensor)
        _, parts = self.by_storage.setdefault(place, (storage, {}))
        part = geometry(tensor)
        parts[part] = parts.get(part, NOTHING) | names
        self._by_object[tensor] = self._by_object.get(tensor, NOTHING) | names

    def keep(self, tensor: Tensor, names: Names) -> None:
        """Note that an object has these names and no others, whatever part of its storage is marked."""
        if (tensor := unwrap(tensor)) not in self._by_object:
            self._by_object[tensor] = names

    def forget_the_dead(self) -> None:
        """Drop storages that are gone."""
        self.by_storage = {place: kept for place, kept in self.by_storage.items() if not kept[0].expired()}


def geometry(tensor: Tensor) -> Geometry:
    """Return which part of its storage a tensor shows."""
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def is_wrapped(tensor: Tensor) -> bool:
    """Tell whether torch.func (vmap, grad, …) stands between a tensor and its memory."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def unwrap(tensor: Tensor) -> Tensor:
    """Return the tensor inside the wrappers of torch.func."""
    while is_wrapped(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor
