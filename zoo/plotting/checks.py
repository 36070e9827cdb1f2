from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

Array = np.ndarray | Tensor
"""What the pictures are drawn from: NumPy arrays or torch tensors."""

ROUNDING = 1e-4  # how far outside [0, 1] a resized image or a float32 softmax may stray


class Shapes:
    """Checks arrays against shapes such as ``"N T K"``; a letter stands for one size in all of them.

    It keeps the size of every letter met so far, so that a later array which disagrees is named.

    Example:
        >>> shapes = Shapes()
        >>> shapes.real("centres", np.zeros((8, 6, 2)), "N T 2").shape
        (8, 6, 2)
        >>> shapes.unit("probabilities", np.zeros((7, 6, 10)), "N T K")
        Traceback (most recent call last):
        ValueError: probabilities must have the shape (N=8, T=6, K), got (7, 6, 10)
    """

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes

    def real(self, name: str, value: Array, shape: str) -> Float[np.ndarray, "..."]:
        """Return the array as finite float64 numbers of the given shape.

        Raises:
            ValueError: the shape differs, a size is 0, or a value is no number, NaN or infinite.
        """
        array = self._shaped(name, value, shape)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} must hold real numbers, got {array.dtype}")
        array = array.astype(np.float64)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, but holds NaN or infinity")
        return array

    def unit(self, name: str, value: Array, shape: str) -> Float[np.ndarray, "..."]:
        """Return the array as numbers between 0 and 1, rounding errors clipped away.

        Raises:
            ValueError: the shape differs, a size is 0, or a value lies outside [0, 1].
        """
        array = self.real(name, value, shape)
        if array.min() < -ROUNDING or array.max() > 1 + ROUNDING:
            raise ValueError(f"{name} must lie in [0, 1], but spans {array.min():g} to {array.max():g}")
        return array.clip(0, 1)

    def pictures(self, name: str, value: Array, shape: str) -> Float[np.ndarray, "*batch height width 3"]:
        """Turn images ``(…, C, H, W)`` between 0 and 1 into the RGB pixels ``(…, H, W, 3)`` that are drawn.

        Raises:
            ValueError: as for ``unit``, or the images have neither 1 nor 3 channels.
        """
        images = np.moveaxis(self.unit(name, value, shape), -3, -1)
        if images.shape[-1] not in (1, 3):
            raise ValueError(f"{name} must have 1 channel (grey) or 3 (RGB), got {images.shape[-1]}")
        return np.broadcast_to(images, (*images.shape[:-1], 3))

    def class_indices(self, name: str, value: Array, shape: str) -> Int[np.ndarray, "..."]:
        """Return the array as whole numbers from 0 to K - 1.

        Raises:
            ValueError: the shape differs, or a value is not the index of one of the K classes.
        """
        array = self._shaped(name, value, shape)
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} must be whole numbers, got {array.dtype}")
        if array.min() < 0 or array.max() >= self.sizes["K"]:
            raise ValueError(f"{name} must lie between 0 and {self.sizes['K'] - 1}, one of the classes")
        return array.astype(np.int64)

    def class_names(self, name: str, value: Sequence[str]) -> tuple[str, ...]:
        """Return the names as a tuple of K.

        Raises:
            ValueError: there are more or fewer than K.
        """
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
            wanted = (f"{letter}={self.sizes[letter]}" if letter in self.sizes else letter for letter in letters)
            raise ValueError(f"{name} must have the shape ({', '.join(wanted)}), got {array.shape}")
        if array.size == 0:
            raise ValueError(f"{name} is empty: its shape is {array.shape}")
        self.sizes = {letter: size for letter, size in sizes.items() if not letter.isdigit()}
        return array
