"""Gymnasium's spaces: support checks, serialization to plain data, and conversion of elements."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple
from gymnasium.spaces.utils import flatten, flatten_space
from gymnasium.vector.utils import batch_space, iterate

_ARRAY_SPACES = (Box, Discrete, MultiDiscrete, MultiBinary)
_KINDS = {kind.__name__: kind for kind in (*_ARRAY_SPACES, Dict, Tuple, OneOf)}
_ADVICE = "wrap the environment to return arrays of a fixed shape, and register the wrapped one"


class UnsupportedSpaceError(ValueError):
    """A space that no network, policy or table of the library supports.

    Example:
        >>> from gymnasium.spaces import Text
        >>> check_observation_space(Text(5), "Chat-v0")
        Traceback (most recent call last):
        zoo.control.envs._spaces.UnsupportedSpaceError: the observation space of Chat-v0 is not supported: ...
    """


def check_observation_space(space: Space, name: str) -> None:
    """Check that observations can be flattened to arrays of a fixed size."""
    if (found := _unsupported(space, "observation")) is not None:
        where, kind = found
        raise UnsupportedSpaceError(
            f"the observation space of {name} is not supported: {where} is a {kind}, which has no fixed size; {_ADVICE}"
        )
    if math.prod(flatten_space(space).shape or (1,)) == 0:
        raise UnsupportedSpaceError(f"the observation space of {name} is not supported: it is empty; {_ADVICE}")


def _unsupported(space: Space, where: str) -> tuple[str, str] | None:
    """Return path and class of the first part that is not an array space."""
    if not isinstance(space, Dict | Tuple | OneOf):
        return None if isinstance(space, _ARRAY_SPACES) else (where, type(space).__name__)
    parts = space.spaces.items() if isinstance(space, Dict) else enumerate(space.spaces)
    found = (_unsupported(part, f"{where}[{key!r}]") for key, part in parts)
    return next((part for part in found if part is not None), None)


def factor_sizes(space: Space) -> list[int] | None:
    """Return the number of values of each factor of a finite space; None if the space is not finite."""
    if isinstance(space, Discrete):
        return [int(space.n)]
    if isinstance(space, MultiBinary):
        return [2] * math.prod(space.shape)
    if isinstance(space, MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    if isinstance(space, Box) and space.dtype.kind in "biu":
        bounds = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
        return [int(high) - int(low) + 1 for low, high in bounds]
    if isinstance(space, Dict | Tuple):
        parts = [factor_sizes(part) for part in (space.values() if isinstance(space, Dict) else space)]
        return None if None in parts else [size for part in parts for size in part or ()]
    return None


def num_elements(space: Space) -> int | None:
    """Return the number of elements of a finite space; None if the space is not finite."""
    found = factor_sizes(space)
    return None if found is None else math.prod(found)


def element_index(space: Space, element: Any) -> int:
    """Return the index of an element among all elements of a finite space, counted from 0."""
    found = factor_sizes(space)
    digits = _digits(space, element)
    if len(digits) == 1 and found is not None and 0 <= digits[0] < found[0]:
        return digits[0]
    return int(np.ravel_multi_index(digits, found))  # type: ignore[arg-type]


def _digits(space: Space, element: Any) -> list[int]:
    """Return the value of each factor of an element, counted from 0."""
    if isinstance(space, Dict):
        return [digit for key, part in space.spaces.items() for digit in _digits(part, element[key])]
    if isinstance(space, Tuple):
        pairs = zip(space.spaces, element, strict=True)
        return [digit for part, value in pairs for digit in _digits(part, value)]
    first: Any = space.low if isinstance(space, Box) else getattr(space, "start", 0)
    return [int(digit) for digit in np.ravel(np.asarray(element).astype(np.int64) - np.asarray(first, np.int64))]


def to_env_actions(space: Space, actions: np.ndarray) -> np.ndarray:
    """Convert a batch of a policy's actions to elements of the action space, in its shape and type.

    An action is an index, a row of indices or a row of coordinates. If the space has several factors, a
    single index is that of their combination.
    """
    shape = (len(actions), *(space.shape or ()))
    if isinstance(space, Box):
        actions = np.clip(actions.reshape(shape), space.low, space.high)
        return (np.rint(actions) if space.dtype.kind in "iu" else actions).astype(space.dtype)
    if isinstance(space, Discrete):
        return actions + space.start if space.start else actions
    if actions.ndim == 1:
        actions = np.stack(np.unravel_index(actions, factor_sizes(space)), -1)  # type: ignore[arg-type]
    return (actions.reshape(shape) + getattr(space, "start", 0)).astype(space.dtype)


def space_to_dict(space: Space) -> dict[str, Any]:
    """Return a supported space as plain data, for a checkpoint."""
    if isinstance(space, Dict):
        return {"kind": "Dict", "spaces": [[key, space_to_dict(part)] for key, part in space.spaces.items()]}
    if isinstance(space, Tuple | OneOf):
        kind = "Tuple" if isinstance(space, Tuple) else "OneOf"
        return {"kind": kind, "spaces": [space_to_dict(part) for part in space.spaces]}
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, MultiBinary):
        n: Any = space.n  # MultiBinary(3) and MultiBinary([3]) are unequal, though of the same shape
        return {"kind": "MultiBinary", "n": int(n) if np.ndim(n) == 0 else list(space.shape)}
    if isinstance(space, Box):
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
    raise ValueError(f"the space {type(space).__name__} has no description as plain data")


def _bound(values: np.ndarray) -> Any:
    """Return a bound as one number if all elements have the same: an image has thousands of elements."""
    first = values.ravel()[:1]
    return first.item() if first.size and (values == first).all() else values.tolist()


def space_from_dict(plain: Mapping[str, Any]) -> Space:
    """Return the space that ``space_to_dict`` described."""
    arguments = dict(plain)
    kind: Any = _KINDS[arguments.pop("kind")]
    if kind is Dict:
        return Dict({key: space_from_dict(part) for key, part in arguments["spaces"]})
    if kind in (Tuple, OneOf):
        return kind([space_from_dict(part) for part in arguments["spaces"]])
    if kind is Box:
        shape, dtype = tuple(arguments["shape"]), np.dtype(arguments["dtype"])
        low, high = (np.broadcast_to(np.asarray(arguments[name], dtype), shape) for name in ("low", "high"))
        return Box(low, high, shape, dtype.type)
    return kind(**arguments)


def to_array(space: Space, element: Any) -> np.ndarray:
    """Return an observation as an array: unchanged for a ``Box``, otherwise flattened."""
    return np.asarray(element) if isinstance(space, Box) else np.asarray(flatten(space, element))


def to_batch(space: Space | None, shape: Sequence[int], observation: Any, tabular: bool) -> tuple[np.ndarray, bool]:
    """Return a batch of observations as arrays, or as indices for a table, and whether ``observation`` is a single one.

    Without a space, observations are arrays of the given shape, and are not converted.
    """
    convert = element_index if tabular else to_array
    if isinstance(space, Dict | OneOf | Tuple):
        single = not _is_batch(space, observation)
        elements = [observation] if single else iterate(batch_space(space), observation)
        return np.stack([convert(space, element) for element in elements]), single
    shape = tuple(shape if space is None else space.shape or ())
    array = np.asarray(observation)
    single = array.shape == shape
    if not single and array.shape[1:] != shape:
        raise ValueError(
            f"an observation of shape {array.shape} has neither the environment's shape {shape}, nor that of a "
            "batch of observations"
        )
    batch = array[None] if single else array
    if space is not None and tabular:
        batch = np.array([element_index(space, element) for element in batch], np.int64)
    elif space is not None and not isinstance(space, Box):
        batch = np.stack([to_array(space, element) for element in batch]) if len(batch) else batch
    return np.array(batch), single


def _is_batch(space: Space, observation: Any) -> bool:
    """Return whether the first array of a composite observation has an additional leading dimension."""
    while isinstance(space, Dict | OneOf | Tuple):
        if isinstance(space, OneOf):  # an observation is the index of a space and an element of it
            return not isinstance(observation[0], int | np.integer)
        key: Any = next(iter(space.spaces)) if isinstance(space, Dict) else 0
        space, observation = space.spaces[key], observation[key]
    return np.ndim(observation) > len(space.shape or ())
