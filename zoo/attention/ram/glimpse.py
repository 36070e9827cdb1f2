import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GlimpseSensor(nn.Module):
    """Glimpse sensor ``ρ(x, l)`` of RAM: square patches around a location, each twice as wide as the one before.

    Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014. The patch of scale ``k`` covers
    ``patch_size · 2^k`` pixels per side and is average-pooled to ``patch_size``.

    A location is ``l = (vertical, horizontal)``: (0, 0) is the center of the image, (-1, -1) lies ``location_range``
    pixels above and to the left of it. Locations beyond ±1 are clipped here; their density is that of the raw sample.
    The paper does not specify the range: if it is too wide, the first, random glimpses show little but the padding.

    Args:
        image_shape: ``(channels, height, width)``.
        patch_size: side of each patch in pixels, after pooling.
        num_scales: number of patches in a glimpse.
        location_range: distance in pixels from the center to ``l = 1``, along both axes. Default: the finest patch just
            stays inside the image, ``(height - patch_size) / 2`` and ``(width - patch_size) / 2``.
        fill_value: value per channel outside the image. It is subtracted from the image, so that padding reads 0.

    Raises:
        ValueError: a size, a number of scales or a range is not positive, or ``fill_value`` has another number of
            channels.

    Example:
        >>> sensor = GlimpseSensor((1, 28, 28), patch_size=8, num_scales=2)
        >>> sensor(sensor.patches(torch.rand(5, 1, 28, 28)), torch.zeros(5, 2)).shape
        torch.Size([5, 2, 1, 8, 8])
    """

    patch_sizes: tuple[int, ...]
    """Side of the square that each scale covers, in pixels of the image."""
    num_features: int
    """Number of elements of one glimpse."""
    location_range: Tensor
    center: Tensor
    fill_value: Tensor
    _padding: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch_size: int = 8,
        num_scales: int = 1,
        location_range: float | None = None,
        fill_value: Sequence[float] | float = 0.0,
    ):
        super().__init__()
        channels, height, width = image_shape
        if patch_size < 1 or num_scales < 1:
            raise ValueError(
                f"patch_size and num_scales must be at least 1, got patch_size={patch_size}, num_scales={num_scales}"
            )
        if location_range is None and min(height, width) <= patch_size:
            raise ValueError(
                f"a patch of {patch_size} pixels covers a whole side of a {height}×{width} image; "
                "use a smaller patch_size, or set location_range"
            )
        if location_range is not None and not 0 < location_range < math.inf:
            raise ValueError(f"location_range must be a positive number of pixels, got {location_range}")
        ranges = (
            ((height - patch_size) / 2, (width - patch_size) / 2)
            if location_range is None
            else (location_range, location_range)
        )
        fill = torch.as_tensor(fill_value, dtype=torch.float32).flatten()
        if len(fill) not in (1, channels):
            raise ValueError(f"fill_value must have 1 or {channels} elements, got {len(fill)}")
        self.image_shape, self.patch_size, self.num_scales = (channels, height, width), patch_size, num_scales
        self.patch_sizes = tuple(patch_size * 2**k for k in range(num_scales))
        self.num_features = num_scales * channels * patch_size**2
        # Padded so far that the widest patch at the outermost location still lies inside.
        reach = self.patch_sizes[-1] / 2
        self.padding = tuple(
            max(0, int(reach + r - extent / 2) + 1) for r, extent in zip(ranges, (height, width), strict=True)
        )
        self.register_buffer("location_range", torch.tensor(ranges), persistent=False)
        self.register_buffer("center", torch.tensor([(height - 1) / 2, (width - 1) / 2]), persistent=False)
        self.register_buffer("fill_value", fill.reshape(-1, 1, 1), persistent=False)
        self.register_buffer("_padding", torch.tensor(self.padding), persistent=False)

    def patches(self, images: Float[Tensor, "images channels height width"]) -> list[Tensor]:
        """Return all patches of the images as views, computed once for any number of glimpses.

        Those of each scale, ``(images, channels, rows, columns, patch_size, patch_size)``, are indexed by the row and
        column of the padded image at which they start.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"the glimpse sensor requires images of shape (channels, height, width) = {self.image_shape}, "
                f"got a batch of shape {tuple(images.shape)}"
            )
        vertical, horizontal = self.padding
        padded = F.pad(images - self.fill_value, (horizontal, horizontal, vertical, vertical))
        levels = accumulate(range(1, self.num_scales), _pool_next, initial=padded)
        return [_unfold(level, self.patch_size, 2**k) for k, level in enumerate(levels)]

    def pixel_coordinates(self, locations: Float[Tensor, "*dims 2"]) -> Float[Tensor, "*dims 2"]:
        """Return locations as ``(row, column)`` in pixels of the image, with pixel centers at integers."""
        return self.center + locations.clamp(-1, 1) * self.location_range

    def forward(
        self, patches: list[Tensor], locations: Float[Tensor, "*samples images 2"]
    ) -> Float[Tensor, "*samples images scales channels size size"]:
        """Return the glimpse of each image at each location; ``patches`` are those of ``patches(images)``."""
        image = torch.arange(locations.shape[-2], device=locations.device)
        centers = self.pixel_coordinates(locations) + self._padding
        glimpses = []
        for side, level in zip(self.patch_sizes, patches, strict=True):
            # Half pixels are rounded towards bottom right: round() would round to even, and so depend on the padding.
            # A NaN location reads an arbitrary patch; the loss is NaN then, and its check names the term.
            row, column = (centers - side / 2 + 1).nan_to_num().long().unbind(-1)
            glimpses.append(level[image, :, row, column])
        return torch.stack(glimpses, dim=-4)


def _pool_next(
    level: Float[Tensor, "images channels height width"], k: int
) -> Float[Tensor, "images channels rows columns"]:
    """Return means over all squares of ``2^k`` pixels per side, from those of half the side.

    Each is the mean of only four numbers, whatever the side; ``avg_pool2d`` with a stride of 1 adds up all pixels of
    every square.
    """
    half = 2 ** (k - 1)
    rows = level[:, :, :-half] + level[:, :, half:]
    return (rows[..., :-half] + rows[..., half:]) / 4


def _unfold(
    level: Float[Tensor, "images channels height width"], size: int, stride: int
) -> Float[Tensor, "images channels rows columns size size"]:
    """Return a view of all ``size × size`` patches whose pixels are ``stride`` apart."""
    reach = (size - 1) * stride + 1
    return level.unfold(2, reach, 1)[..., ::stride].unfold(3, reach, 1)[..., ::stride]
