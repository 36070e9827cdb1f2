from zoo.plotting.animation import save_glimpse_gif
from zoo.plotting.curves import learning_curves
from zoo.plotting.glimpses import glimpse_paths
from zoo.plotting.mistakes import mistakes
from zoo.plotting.returns import return_curves
from zoo.plotting.saving import save_figure
from zoo.plotting.sheets import picture_sheet

__all__ = [
    "glimpse_paths",
    "learning_curves",
    "mistakes",
    "picture_sheet",
    "return_curves",
    "save_figure",
    "save_glimpse_gif",
]
