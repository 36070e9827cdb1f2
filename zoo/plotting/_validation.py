from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray | Tensor
"""NumPy array or torch tensor, as plotting functions accept them."""

TOLERANCE = 1e-4  # tolerance around [0, 1], for resized images and float32 softmax


class ArrayValidator:
    """Validates and converts arrays whose expected shapes are strings such as ``"N T K"``.

    A letter stands for the same size in all arrays of a validator: the first array that has it, or a keyword argument,
    determines the size. All methods raise a ``ValueError`` that names the array.
    """

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes

    def real(self, name: str, value: Array, shape: str) -> Float[np.ndarray, "..."]:
        """Return an array of real numbers as finite float64 values."""
        array = self._shaped(name, value, shape)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} must contain real numbers, got {array.dtype}")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, but contains NaN or infinity")
        return array

    def unit(self, name: str, value: Array, shape: str) -> Float[np.ndarray, "..."]:
        """Return an array of values between 0 and 1, with rounding errors clipped."""
        array = self.real(name, value, shape)
        if array.min() < -TOLERANCE or array.max() > 1 + TOLERANCE:
            raise ValueError(f"{name} must lie in [0, 1], but spans {array.min():g} to {array.max():g}")
        return array.clip(0, 1)

    def images(self, name: str, value: Array, shape: str) -> Float[np.ndarray, "*batch height width 3"]:
        """Return gray or RGB images ``(…, C, H, W)`` between 0 and 1 as RGB pixels ``(…, H, W, 3)``."""
        images = np.moveaxis(self.unit(name, value, shape), -3, -1)
        if images.shape[-1] not in (1, 3):
            raise ValueError(f"{name} must have 1 channel (gray) or 3 (RGB), got {images.shape[-1]}")
        return np.broadcast_to(images, (*images.shape[:-1], 3))

    def class_indices(self, name: str, value: Array, shape: str) -> Int[np.ndarray, "..."]:
        """Return an array of integers from 0 to K - 1."""
        array = self._shaped(name, value, shape)
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, got {array.dtype}")
        if array.min() < 0 or array.max() >= self.sizes["K"]:
            raise ValueError(f"{name} must lie between 0 and {self.sizes['K'] - 1}, one of the classes")
        return array.astype(np.int64)

    def class_names(self, name: str, value: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the K classes as a tuple."""
        if len(value) != self.sizes["K"]:
            raise ValueError(f"{name} must name all {self.sizes['K']} classes, got {len(value)} names")
        return tuple(str(each) for each in value)

    def _shaped(self, name: str, value: Array, shape: str) -> np.ndarray:
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            value = value.double() if value.is_floating_point() else value  # NumPy has no bfloat16
        array = np.asarray(value)
        letters = shape.split()
        sizes = self.sizes | {letter: int(letter) for letter in letters if letter.isdigit()}
        if len(letters) != array.ndim or any(
            sizes.setdefault(letter, size) != size for letter, size in zip(letters, array.shape, strict=True)
        ):
            expected = (f"{letter}={self.sizes[letter]}" if letter in self.sizes else letter for letter in letters)
            raise ValueError(f"{name} must have the shape ({', '.join(expected)}), got {array.shape}")
        if array.size == 0:
            raise ValueError(f"{name} is empty: its shape is {array.shape}")
        self.sizes = {letter: size for letter, size in sizes.items() if not letter.isdigit()}
        return array


def check_points(name: str, x: Array, y: Array) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Return x and y of a line as float64 arrays of the same length."""
    validator = ArrayValidator()
    return validator.real(f"x of {name}", x, "P"), validator.real(f"y of {name}", y, "P")
