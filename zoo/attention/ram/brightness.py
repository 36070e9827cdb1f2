import torch
from torch import Tensor


def checked_brightness(images: Tensor) -> Tensor:
    """Turn pictures into floats in [0, 1], or say what is wrong with them."""
    if images.ndim != 4 or not images.numel():
        raise ValueError(
            "pictures must have shape (images, channels, height, width), at least one of them, "
            f"got {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        return images / 255
    if not images.is_floating_point():
        raise ValueError(f"pictures must be uint8, or floats in [0, 1], got {images.dtype}")
    if not torch.isfinite(images).all():
        raise ValueError("the pictures hold values that are not finite; replace them before asking")
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"pictures of floats must lie in [0, 1], got values from {low:g} to {high:g}")
    return images.float()
