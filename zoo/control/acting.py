from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.control.networks import OUTLIER, Standardize
from zoo.control.policy_gradient.policies import Policy

NOISE_AT_ONCE = 64  # steps whose noise is drawn together

Actor = Callable[[np.ndarray, Tensor], Tensor]
Forward = Callable[[np.ndarray], np.ndarray]


def actor(policy: Policy) -> Actor:
    """Give ``act`` of a policy, with the parameters it has now, for the arrays that environments give and take.

    A call of torch takes longer than what a small network has to calculate for some dozens of environments. On a
    processor numpy therefore computes the networks that it can, from the parameters where they lie; the policy's
    gradient never passes here.

    Args:
        policy: on any device; it is not to be updated while the function is used.

    Example:
        >>> from zoo.control.policy_gradient.policies import make_policy
        >>> policy = make_policy((4,), 2, hidden=(64,))
        >>> actor(policy)(np.zeros((5, 4), np.float32), policy.noise(5)).shape
        torch.Size([5])
    """
    device = next(policy.parameters()).device
    if device.type == "cpu" and (forward := numpy_forward(policy.net)) is not None:
        return lambda observation, noise: policy.choose(torch.from_numpy(forward(observation)), noise)
    return lambda observation, noise: policy.act(torch.from_numpy(observation).to(device), noise).cpu()


def numpy_forward(net: nn.Module) -> Forward | None:
    """Give the forward pass in numpy; None unless the network is ``Standardize`` before linear and tanh layers."""
    front, *layers = net if isinstance(net, nn.Sequential) else [net]
    if type(front) is not Standardize or not all(map(known, layers)):
        return None
    origin, mean, std = front.origin.double().numpy(), front.mean.numpy(), front.std.numpy()
    weights = [
        (layer.weight.detach().numpy().T, layer.bias.detach().numpy()) if isinstance(layer, nn.Linear) else None
        for layer in layers
    ]

    def forward(observation: Shaped[np.ndarray, " batch ..."]) -> Float[np.ndarray, " batch out"]:
        x = observation.reshape(len(observation), -1)
        if x.itemsize > 2 and x.dtype != np.float32:  # as ``is_wide``
            x = x - origin
        x = x.astype(np.float32, copy=False) - mean
        x /= std
        np.minimum(x, OUTLIER, out=x)
        np.maximum(x, -OUTLIER, out=x)
        for affine in weights:
            if affine is None:
                np.tanh(x, out=x)
            else:
                x = x @ affine[0]
                x += affine[1]
        return x

    return forward


def known(layer: nn.Module) -> bool:
    """Whether a layer is one that numpy can do, not a kind of it that may do otherwise."""
    return type(layer) is nn.Tanh or (type(layer) is nn.Linear and layer.bias is not None)
