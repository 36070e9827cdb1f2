import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GlimpseSensor(nn.Module):
    """The retina of RAM: square patches around a point, each scale twice as wide, all of the same resolution.

    ``ρ(x, l)`` of Mnih, Heess, Graves & Kavukcuoglu, "Recurrent models of visual attention", 2014. Scale ``k`` covers
    ``size · 2^k`` pixels a side, box-filtered down to ``size``. What lies outside the picture reads as background.

    A location is ``l = (vertical, horizontal)``: (0, 0) is the middle of the picture, (-1, -1) lies ``span``
    pixels above and to the left of it. Locations beyond ±1 are clipped here; their density is that of the raw
    sample. The paper does not give the span, on which success depends: too wide and the first, random glimpses see
    nothing but border.

    Args:
        image_shape: ``(channels, height, width)``.
        size: side of a patch, in its own pixels.
        scales: number of patches.
        span: pixels from the middle for ``l = 1``, along both axes; by default as far as the finest patch stays
            inside the picture, ``(height - size) / 2`` and ``(width - size) / 2``.
        background: brightness per channel outside the picture; subtracted, so that background reads 0.

    Raises:
        ValueError: a size, a number of scales or a span that is not positive, or a background for another number of
            channels.

    Example:
        >>> sensor = GlimpseSensor((1, 28, 28), size=8, scales=2)
        >>> sensor(sensor.windows(torch.rand(5, 1, 28, 28)), torch.zeros(5, 2)).shape
        torch.Size([5, 2, 1, 8, 8])
    """

    span: Tensor
    middle: Tensor
    background: Tensor
    margin: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        size: int = 8,
        scales: int = 1,
        span: float | None = None,
        background: Sequence[float] | float = 0.0,
    ):
        super().__init__()
        channels, height, width = image_shape
        if size < 1 or scales < 1:
            raise ValueError(f"a glimpse needs at least 1 pixel and 1 scale, got size={size}, scales={scales}")
        if span is None and min(height, width) <= size:
            raise ValueError(
                f"a glimpse of {size} pixels covers a whole side of a {height}×{width} picture; "
                "choose a smaller size, or say with span how far the gaze may go"
            )
        if span is not None and not 0 < span < math.inf:
            raise ValueError(f"span must be a positive number of pixels, got {span}")
        spans = ((height - size) / 2, (width - size) / 2) if span is None else (span, span)
        shades = torch.as_tensor(background, dtype=torch.float32).flatten()
        if len(shades) not in (1, channels):
            raise ValueError(f"background must give 1 or {channels} numbers, got {len(shades)}")
        self.image_shape, self.size, self.scales = (channels, height, width), size, scales
        self.register_buffer("span", torch.tensor(spans), persistent=False)
        self.register_buffer("middle", torch.tensor([(height - 1) / 2, (width - 1) / 2]), persistent=False)
        self.register_buffer("background", shades.reshape(-1, 1, 1), persistent=False)
        # Room for the widest patch at the farthest location.
        reach = size * 2 ** (scales - 1) / 2
        self.padding = tuple(
            max(0, int(reach + s - extent / 2) + 1) for s, extent in zip(spans, (height, width), strict=True)
        )
        self.register_buffer("margin", torch.tensor(self.padding), persistent=False)

    @property
    def sides(self) -> tuple[int, ...]:
        """Side of the square that each scale covers, in pixels of the picture."""
        return tuple(self.size * 2**k for k in range(self.scales))

    @property
    def features(self) -> int:
        """Numbers in one glimpse."""
        return self.scales * self.image_shape[0] * self.size**2

    def windows(self, images: Float[Tensor, "images channels height width"]) -> list[Tensor]:
        """Lay out every possible patch of the pictures, once for any number of glimpses, without copying them.

        Args:
            images: brightness, usually in [0, 1].

        Returns:
            For each scale a view ``(images, channels, rows, columns, size, size)``: all patches by the padded
            picture's row and column at which they start.

        Raises:
            ValueError: pictures of another shape than the sensor was made for.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"this sensor was made for pictures of (channels, height, width) = {self.image_shape}, "
                f"got a batch of shape {tuple(images.shape)}"
            )
        vertical, horizontal = self.padding
        padded = F.pad(images - self.background, (horizontal, horizontal, vertical, vertical))
        blocks = [padded] + [F.avg_pool2d(padded, 2**k, stride=1) for k in range(1, self.scales)]
        return [every_patch(level, self.size, 2**k) for k, level in enumerate(blocks)]

    def centres(self, locations: Float[Tensor, "*dims 2"]) -> Float[Tensor, "*dims 2"]:
        """Where a location points, ``(row, column)`` in pixels of the picture, pixel centres at integers."""
        return self.middle + locations.clamp(-1, 1) * self.span

    def forward(
        self, windows: list[Tensor], locations: Float[Tensor, "*rollouts images 2"]
    ) -> Float[Tensor, "*rollouts images scales channels size size"]:
        """Look at each picture from each location.

        Args:
            windows: of ``windows(images)``.
            locations: one or, with leading dimensions, several for each picture.
        """
        image = torch.arange(locations.shape[-2], device=locations.device)
        padded_centres = self.centres(locations) + self.margin
        glimpses = []
        for side, patches in zip(self.sides, windows, strict=True):
            # Half a pixel goes down and right; round() would go to the even row, and so depend on the padding.
            # A location that is not a number looks anywhere: it spoils the loss, which is where that is noticed.
            row, column = (padded_centres - side / 2 + 1).nan_to_num().long().unbind(-1)
            glimpses.append(patches[image, :, row, column])
        return torch.stack(glimpses, dim=-4)


def default_size(height: int, width: int) -> int:
    """Return the side of a patch that suits an image: 8 pixels on 28×28, 12 on larger ones, as in the paper.

    Example:
        >>> default_size(28, 28), default_size(100, 100)
        (8, 12)
    """
    return 8 if min(height, width) <= 32 else 12


def default_scales(height: int, width: int, size: int) -> int:
    """Return the number of scales with which the widest patch covers three quarters of an image's longer side.

    These are the paper's numbers for its canvases of 28, 60 and 100 pixels.

    Example:
        >>> default_scales(28, 28, size=8), default_scales(60, 60, size=12), default_scales(100, 100, size=12)
        (1, 3, 4)
    """
    side = max(height, width)
    return 1 if side <= 32 else 1 + max(0, math.ceil(math.log2(0.75 * side / size)))


def every_patch(
    level: Float[Tensor, "images channels height width"], size: int, stride: int
) -> Float[Tensor, "images channels rows columns size size"]:
    """View all ``size × size`` patches of a picture, taken from every ``stride``-th pixel.

    Example:
        >>> every_patch(torch.arange(9.0).reshape(1, 1, 3, 3), size=2, stride=1)[0, 0, 1, 0]
        tensor([[3., 4.],
                [6., 7.]])
    """
    reach = (size - 1) * stride + 1
    return level.unfold(2, reach, 1)[..., ::stride].unfold(3, reach, 1)[..., ::stride]
