from jaxtyping import Float, Int64
from torch import Tensor


def sample_categorical(p: Float[Tensor, "*dims categories"], noise: Float[Tensor, "*dims"]) -> Int64[Tensor, "*dims"]:
    """Return the category at which the distribution function of ``p`` first exceeds uniform noise in [0, 1).

    Example:
        >>> import torch
        >>> sample_categorical(torch.tensor([0.2, 0.5, 0.3]), torch.tensor(0.6))
        tensor(1)
    """
    # The last value may fall short of 1 by rounding.
    return (p.cumsum(-1)[..., :-1] <= noise[..., None]).sum(-1)
