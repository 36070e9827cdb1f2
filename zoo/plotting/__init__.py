"""Figures drawn from plain arrays, with one style."""

from zoo.plotting._gif import GifWriter
from zoo.plotting._saving import save_figure
from zoo.plotting.captions import caption_attention
from zoo.plotting.glimpses import glimpse_summary, save_glimpse_gif
from zoo.plotting.image_grid import image_grid
from zoo.plotting.misclassified import misclassified
from zoo.plotting.returns import return_curves

__all__ = [
    "GifWriter",
    "caption_attention",
    "glimpse_summary",
    "image_grid",
    "misclassified",
    "return_curves",
    "save_figure",
    "save_glimpse_gif",
]
