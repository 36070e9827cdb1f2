import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# What a tensor may tell without telling its values.
METADATA = {
    *("__len__", "__hash__", "__dir__", "dim", "ndimension", "size", "numel", "nelement", "stride", "storage_offset"),
    *("element_size", "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_same_size", "is_conj"),
    *("is_neg", "is_inference", "get_device", "result_type", "register_hook", "_is_view", "_set_grad_enabled"),
}
ACCESS = {"__get__", "__set__", "__delete__", "type"}  # of attributes, which hold other tensors or tell no values
# Positions of the arguments whose values become the shape of a result.
SHAPE_FROM = {
    **dict.fromkeys(("nonzero", "argwhere", "unique", "unique_consecutive", "bincount", "to_sparse"), slice(0, None)),
    **dict.fromkeys(("arange", "range", "zeros", "ones", "empty", "rand", "randn", "randint", "eye"), slice(0, None)),
    **dict.fromkeys(("masked_select", "repeat_interleave", "one_hot", "repeat", "tile", "reshape"), slice(1, None)),
    **dict.fromkeys(("view", "unflatten", "unfold", "as_strided", "resize_", "expand", "broadcast_to"), slice(1, None)),
    **dict.fromkeys(("split", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit"), slice(1, None)),
    **dict.fromkeys(("chunk", "topk", "new_zeros", "new_ones", "new_empty"), slice(1, None)),
    **dict.fromkeys(("new_full", "pad", "_pack_padded_sequence", "_pad_packed_sequence"), slice(1, 2)),
    **dict.fromkeys(("linspace", "logspace"), slice(2, 3)),
    **{"full": slice(0, 1), "narrow": slice(3, 4)},
}
ALONE = {"where", "repeat_interleave", "one_hot"}  # have a shape from their values if there is no other argument
GIVE_TO_PYTHON = {"apply_", "map_", "map2_"}
COLLECTIONS = (tuple, list, set, frozenset)
MASKS = (torch.bool, torch.uint8)
BETWEEN = ("torch", "zoo.gradients.graphs", "jaxtyping", "beartype")  # modules, on the way from a distribution to here


def told(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> list[Tensor]:
    """Find the arguments whose values a torch function makes a Python object, or the shape of a tensor.

    Args:
        name: of the torch function.
        args: its arguments.
        kwargs: its arguments by name.
        result: what it returned.
    """
    if name == "__getitem__":
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        return [t for part in parts for t in tensors_in(part) if isinstance(part, slice) or t.dtype in MASKS]
    alone = name in ALONE and len(args) + len(kwargs) == 1
    if name in SHAPE_FROM and not alone:
        named = {key: value for key, value in kwargs.items() if key not in ("input", "fill_value")}
        return tensors_in((args[SHAPE_FROM[name]], named))
    opaque = result is not None and name not in ACCESS and not tensors_in(result)
    checked = name == "__bool__" and called_by_a_distribution()
    return tensors_in((args, kwargs)) if alone or name in GIVE_TO_PYTHON or (opaque and not checked) else []


def called_by_a_distribution() -> bool:
    """Tell whether the torch function that is running was called within torch.distributions, to check an argument."""
    frame = sys._getframe(1)
    while frame.f_back:
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("torch.distributions"):
            return True
        if not module.startswith(BETWEEN):
            return False
        frame = frame.f_back
    return False


def tensors_in(value: Any) -> list[Tensor]:
    """Find the tensors in nested tuples, lists, sets, dicts and slices."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, slice):
        value = (value.start, value.stop, value.step)
    elif isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, COLLECTIONS):
        return []
    return [tensor for part in value for tensor in tensors_in(part)]
