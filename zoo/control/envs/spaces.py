"""Gymnasium's spaces: which of them are supported, as plain data, and how their elements are counted and converted."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, OneOf, Space, Tuple
from gymnasium.spaces.utils import flatten, flatten_space

ARRAYS = (Box, Discrete, MultiDiscrete, MultiBinary)  # a fixed number of numbers each
ADVICE = "wrap the environment so that it gives arrays of one shape, and register that"


class UnsupportedSpaceError(ValueError):
    """A space whose elements no network, policy or table here can deal with."""


def check_observation_space(space: Space, name: str) -> None:
    """Check that observations can be flattened to a fixed number of numbers.

    Raises:
        UnsupportedSpaceError: a part of the space has no fixed size (graphs, sequences, text), or it is empty.

    Example:
        >>> check_observation_space(Dict(speed=Box(0, 1), gear=Discrete(5)), "Car-v0")
    """
    if (found := _unsupported(space, "observation")) is not None:
        where, kind = found
        raise UnsupportedSpaceError(
            f"no network reads the observations of {name}: {where} is of the space {kind}, which has no fixed number "
            f"of numbers; {ADVICE}"
        )
    if math.prod(flatten_space(space).shape or (1,)) == 0:
        raise UnsupportedSpaceError(f"no network reads the observations of {name}: they are empty; {ADVICE}")


def _unsupported(space: Space, where: str) -> tuple[str, str] | None:
    """Path and kind of the first part that is not made of arrays."""
    if isinstance(space, Dict):
        parts = [(f"{where}[{key!r}]", part) for key, part in space.spaces.items()]
    elif isinstance(space, Tuple | OneOf):
        parts = [(f"{where}[{index}]", part) for index, part in enumerate(space.spaces)]
    else:
        return None if isinstance(space, ARRAYS) else (where, type(space).__name__)
    return next((found for path, part in parts if (found := _unsupported(part, path)) is not None), None)


def sizes(space: Space) -> list[int] | None:
    """Count the values of each digit of a finite space, in the order of ``digits``; None if the space is not finite.

    Example:
        >>> sizes(Tuple([Discrete(32), Discrete(11), Discrete(2)])), sizes(Box(0, 1, (2,)))
        ([32, 11, 2], None)
    """
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
        parts = [sizes(part) for part in _parts(space)]
        return None if None in parts else [size for part in parts for size in part or ()]
    return None


def _parts(space: Dict | Tuple) -> Sequence[Space]:
    return list(space.spaces.values()) if isinstance(space, Dict) else list(space.spaces)


def count(space: Space) -> int | None:
    """Count the elements of a finite space; None if the space is not finite.

    Example:
        >>> count(Tuple([Discrete(32), Discrete(11), Discrete(2)])), count(Box(0, 1, (2,)))
        (704, None)
    """
    found = sizes(space)
    return None if found is None else math.prod(found)


def index(space: Space, element: Any) -> int:
    """Position of an element among all elements of a finite space, counted from 0.

    Example:
        >>> index(Tuple([Discrete(32), Discrete(11), Discrete(2)]), (4, 10, 1))
        109
    """
    found = sizes(space)
    digits = _digits(space, element)
    if len(digits) == 1 and found is not None and 0 <= digits[0] < found[0]:
        return digits[0]
    return int(np.ravel_multi_index(digits, found))  # type: ignore[arg-type]


def _digits(space: Space, element: Any) -> list[int]:
    """Values of the parts of an element, each counted from 0."""
    if isinstance(space, Dict):
        return [digit for key, part in space.spaces.items() for digit in _digits(part, element[key])]
    if isinstance(space, Tuple):
        pairs = zip(space.spaces, element, strict=True)
        return [digit for part, value in pairs for digit in _digits(part, value)]
    first: Any = space.low if isinstance(space, Box) else getattr(space, "start", 0)
    return [int(digit) for digit in np.ravel(np.asarray(element).astype(np.int64) - np.asarray(first, np.int64))]


def environment_actions(space: Space, actions: np.ndarray) -> np.ndarray:
    """Convert a batch of a policy's actions to elements of the action space.

    Choices are counted from the space's own start. Coordinates are clipped to the bounds, and rounded where the space
    holds integers. Both get the space's shape and type.

    Args:
        space: of one action.
        actions: a choice each; or a row of choices or coordinates each. One choice each for a space of several parts is
            the position among all their combinations.

    Example:
        >>> environment_actions(Box(-1, 1, (2, 1), np.int64), np.array([[0.6, -7.0]])).tolist()
        [[[1], [-1]]]
    """
    shape = (len(actions), *(space.shape or ()))
    if isinstance(space, Box):
        actions = np.clip(actions.reshape(shape), space.low, space.high)
        return (np.rint(actions) if space.dtype.kind in "iu" else actions).astype(space.dtype)
    if isinstance(space, Discrete):
        return actions + space.start if space.start else actions
    if actions.ndim == 1:
        actions = np.stack(np.unravel_index(actions, sizes(space)), -1)  # type: ignore[arg-type]
    return (actions.reshape(shape) + getattr(space, "start", 0)).astype(space.dtype)


def to_plain(space: Space) -> dict[str, Any]:
    """Describe a supported space as numbers, strings, lists and dicts, to be kept in a checkpoint.

    Example:
        >>> to_plain(Discrete(3))
        {'kind': 'Discrete', 'n': 3, 'start': 0}
    """
    kind = {"kind": type(space).__name__}
    if isinstance(space, Dict):
        return {"kind": "Dict", "spaces": [[key, to_plain(part)] for key, part in space.spaces.items()]}
    if isinstance(space, Tuple | OneOf):
        return {**kind, "spaces": [to_plain(part) for part in space.spaces]}
    if isinstance(space, Discrete):
        return {"kind": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, MultiDiscrete):
        return {"kind": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, MultiBinary):
        return {"kind": "MultiBinary", "shape": list(space.shape)}
    if isinstance(space, Box):
        bounds = {"low": _bound(space.low), "high": _bound(space.high)}
        return {"kind": "Box", **bounds, "shape": list(space.shape), "dtype": str(space.dtype)}
    raise ValueError(f"the space {type(space).__name__} cannot be described as plain data")


def _bound(values: np.ndarray) -> Any:
    """One number if all are alike: pictures have thousands."""
    first = values.ravel()[:1]
    return first.item() if first.size and (values == first).all() else values.tolist()


def from_plain(plain: Mapping[str, Any]) -> Space:
    """Make the space that ``to_plain`` described.

    Example:
        >>> from_plain(to_plain(Dict(speed=Box(0, 1, (2,)), gear=Discrete(5, start=1))))
        Dict('gear': Discrete(5, start=1), 'speed': Box(0.0, 1.0, (2,), float32))
    """
    options = {key: value for key, value in plain.items() if key != "kind"}
    if plain["kind"] == "Dict":
        return Dict({key: from_plain(part) for key, part in options["spaces"]})
    if plain["kind"] in ("Tuple", "OneOf"):
        kind = Tuple if plain["kind"] == "Tuple" else OneOf
        return kind([from_plain(part) for part in options["spaces"]])
    if plain["kind"] == "MultiBinary":
        return MultiBinary(options["shape"])
    if plain["kind"] == "Box":
        shape, dtype = tuple(options["shape"]), np.dtype(options["dtype"])
        low, high = (np.broadcast_to(np.asarray(options[name], dtype), shape) for name in ("low", "high"))
        return Box(low, high, shape, dtype.type)
    return {"Discrete": Discrete, "MultiDiscrete": MultiDiscrete}[plain["kind"]](**options)


def flat(space: Space, element: Any) -> np.ndarray:
    """Array of an observation as networks read it: as it is for a ``Box``, else flattened.

    Example:
        >>> flat(Discrete(3), 1).tolist()
        [0, 1, 0]
    """
    return np.asarray(element) if isinstance(space, Box) else np.asarray(flatten(space, element))
