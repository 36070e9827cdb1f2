import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def binary_pixels(
    images: Shaped[Tensor, "images channels height width"], shape: tuple[int, int, int]
) -> Float[Tensor, "images pixels"]:
    """Pictures as rows of 0 and 1.

    Args:
        images: black and white: 0 and 255 as uint8, or 0 and 1 as floats.
        shape: ``(channels, height, width)`` that they must have.

    Raises:
        ValueError: there are none, they have another shape, or a pixel is neither black nor white.

    Example:
        >>> binary_pixels(torch.tensor([[[[0, 255]]]], dtype=torch.uint8), shape=(1, 1, 2))
        tensor([[0., 1.]])
    """
    if len(images) == 0 or tuple(images.shape[1:]) != tuple(shape):
        raise ValueError(
            f"the network was made for pictures of shape {tuple(shape)}, got a batch of {tuple(images.shape)}"
        )
    white = images == (255 if images.dtype == torch.uint8 else 1)
    if not (white | (images == 0)).all():
        raise ValueError("a pixel is neither black nor white, or not a number; binarise the pictures first")
    return white.flatten(1).to(images.dtype if images.is_floating_point() else torch.get_default_dtype())
