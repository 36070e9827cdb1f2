from collections.abc import Sequence

from matplotlib.figure import Figure

from zoo.plotting.cards import draw_episodes
from zoo.plotting.checks import Array
from zoo.plotting.episodes import checked_episodes


def glimpse_paths(
    images: Array,
    centres: Array,
    sides: Sequence[int | float],
    probabilities: Array,
    labels: Array,
    classes: Sequence[str],
    seen: Array | None = None,
) -> Figure:
    """Draw where a hard-attention model looked, what it has seen and what it believed, picture by picture.

    The model is that of Mnih et al., "Recurrent Models of Visual Attention", 2014: it starts at a random
    place and chooses the next ones. A glimpse of side g centred at (r, c) is drawn from r - g/2 to r + g/2
    and from c - g/2 to c + g/2. Six to ten pictures with up to ten glimpses and twenty classes read well.

    Args:
        images: (N, C, H, W) between 0 and 1; C is 1 (grey) or 3 (RGB).
        centres: (N, T, 2), row and column of each glimpse in pixels; pixel centres are whole numbers.
        sides: of a glimpse's S squares, one per scale, in pixels. The finest is drawn for every glimpse, the
            coarser ones for the last.
        probabilities: (N, T, K), of each class after each glimpse.
        labels: (N,), the true classes, from 0 to K - 1.
        classes: their K names.
        seen: (N, T, S, C, g, g) between 0 and 1, what the sensor passed on at each glimpse; shown if given.

    Raises:
        ValueError: an argument has the wrong shape or values outside its range; the sentence names it.

    Example:
        >>> import torch
        >>> images, centres = torch.rand(2, 1, 28, 28), torch.full((2, 3, 2), 13.5)
        >>> beliefs, labels = torch.full((2, 3, 10), 0.1), torch.tensor([4, 9])
        >>> figure = glimpse_paths(images, centres, (8,), beliefs, labels, "0123456789")
        >>> [axes.get_label() for axes in figure.axes][:3]
        ['path', 'seen', 'beliefs']
    """
    episodes = checked_episodes(images, centres, sides, probabilities, labels, classes, seen)
    return draw_episodes(episodes, shown=episodes.steps)
