"""Figures drawn from plain arrays, with one style."""

from zoo.plotting.curves import learning_curves
from zoo.plotting.gif import GifWriter
from zoo.plotting.glimpses import glimpse_summary, save_glimpse_gif
from zoo.plotting.image_grid import image_grid
from zoo.plotting.misclassified import misclassified
from zoo.plotting.returns import regret_curves, return_curves
from zoo.plotting.saving import save_figure

__all__ = [
    "GifWriter",
    "glimpse_summary",
    "image_grid",
    "learning_curves",
    "misclassified",
    "regret_curves",
    "return_curves",
    "save_figure",
    "save_glimpse_gif",
]
