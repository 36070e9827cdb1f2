"""Identity of a tensor's memory."""

import torch
from torch import Tensor

from zoo.gradients.graphs._provenance import torch_internals as internals
from zoo.gradients.graphs._provenance.names import GRADIENT_MARKS, NO_NAMES, Names, quote_names
from zoo.gradients.graphs._provenance.torch_internals import data_address, is_wrapped, storage_address

Address = int | None
State = tuple[Address, object]
"""Address of the storage of a tensor, and its version counter."""


def address(tensor: Tensor) -> Address:
    """Return the address of a tensor's storage object; None if it has none, as a sparse tensor."""
    try:
        return storage_address(tensor)
    except NotImplementedError:
        return address(unwrap(tensor)) if is_wrapped(tensor) else None


def data_pointer(tensor: Tensor) -> int:
    """Return the first byte of the memory of a tensor with an address; 0 if it has no elements."""
    try:
        return data_address(tensor)
    except NotImplementedError:
        return data_pointer(unwrap(tensor))


def states(tensors: list[Tensor]) -> list[State]:
    """Return the state of each tensor; always a new one for inference tensors, which track no version counter."""
    try:
        return [(storage_address(tensor), tensor._version) for tensor in tensors]
    except RuntimeError:
        return [(address(tensor), object() if tensor.is_inference() else tensor._version) for tensor in tensors]


def storage_of(tensor: Tensor, names: Names = NO_NAMES) -> torch.UntypedStorage:
    """Return the storage of a tensor; an error for one without storage contains ``names``."""
    try:
        if not internals.num_function_modes():
            return tensor.untyped_storage()
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
