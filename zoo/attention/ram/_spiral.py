import math

import torch
from jaxtyping import Float
from torch import Tensor


def spiral(num_points: int, radius: float) -> Float[Tensor, "num_points 2"]:
    """Return points spread evenly over a disc: radius ``r √((k + ½) / n)`` at angle ``k π (3 - √5)``, centered.

    Vogel, "A better way to construct the sunflower head", 1979. A single point lies at the center.
    """
    k = torch.arange(num_points)
    r, angle = radius * ((k + 0.5) / num_points).sqrt(), k * math.pi * (3 - math.sqrt(5))
    points = torch.stack([r * angle.cos(), r * angle.sin()], dim=-1)
    return points - points.mean(0)
