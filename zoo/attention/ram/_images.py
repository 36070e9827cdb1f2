import torch
from torch import Tensor


def to_unit_range(images: Tensor) -> Tensor:
    """Return images, uint8 or floats in [0, 1], as floats."""
    if images.ndim != 4 or not images.numel():
        raise ValueError(
            "images must have shape (images, channels, height, width) and not be empty, "
            f"got shape {tuple(images.shape)}"
        )
    if images.dtype == torch.uint8:
        return images / 255
    if not images.is_floating_point():
        raise ValueError(f"images must be uint8 or floats in [0, 1], got {images.dtype}")
    if not torch.isfinite(images).all():
        raise ValueError("images contain NaN or infinity; replace these values first")
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"floating-point images must lie in [0, 1], got values from {low:g} to {high:g}")
    return images.float()
