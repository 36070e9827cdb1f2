from jaxtyping import Float
from torch import Tensor, nn

NUM_FEATURES = 64
GRID = 7  # cells along a side, as in the last feature map of the backbones at 224 pixels


class CellEncoder(nn.Module):
    """Small convolutional network that encodes each cell of an image on its own, on a 7×7 grid.

    No cell knows of its neighbors, so that what the decoder knows of an object is what it attends to. (The cells of a
    deep backbone see most of the image.)

    Args:
        image_size: height and width of the images, a multiple of 7.
        num_features: number of output features of each cell.

    Raises:
        ValueError: ``image_size`` is no multiple of 7, or cells would be smaller than 4 pixels.

    Example:
        >>> import torch
        >>> CellEncoder(image_size=84)(torch.rand(2, 3, 84, 84)).shape
        torch.Size([2, 49, 64])
    """

    def __init__(self, image_size: int, num_features: int = NUM_FEATURES):
        super().__init__()
        self.cell_size = image_size // GRID
        if image_size % GRID or self.cell_size < 4:
            raise ValueError(
                f"encoder=cell_cnn needs images whose sides are a multiple of {GRID}, and at least {4 * GRID}, got "
                f"{image_size}; set data.size"
            )
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(24, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * ((self.cell_size // 2 + 1) // 2) ** 2, num_features),
        )

    def forward(self, images: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images cells features"]:
        """Return the features of the cells, row by row from the upper left."""
        size = self.cell_size
        cells = images.unfold(2, size, size).unfold(3, size, size)  # images 3 rows columns size size
        cells = cells.permute(0, 2, 3, 1, 4, 5)
        return self.layers(cells.flatten(0, 2)).unflatten(0, cells.shape[:3]).flatten(1, 2)
