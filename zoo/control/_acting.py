from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from zoo.control._networks import CLIP_OBS, RunningNorm
from zoo.control.policy import Policy

NOISE_CHUNK_SIZE = 64  # steps whose noise is sampled together

ActFn = Callable[[np.ndarray, Tensor], Tensor]


def make_act_fn(policy: Policy) -> ActFn:
    """Return ``policy.act`` as a function of NumPy observations, valid until the policy is updated.

    For small networks a call of torch takes longer than its arithmetic. On a CPU, networks of ``RunningNorm``, linear
    and tanh layers are therefore computed by NumPy, which shares the memory of torch's parameters. No gradients.
    """
    device = next(policy.parameters()).device
    if device.type == "cpu" and (forward := numpy_forward(policy.net)) is not None:
        return lambda observation, noise: policy.sample_from_noise(torch.from_numpy(forward(observation)), noise)
    return lambda observation, noise: policy.act(torch.from_numpy(observation).to(device), noise).cpu()


def numpy_forward(net: nn.Module) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return a network's forward pass in NumPy; None if it has layers other than those of ``make_act_fn``."""
    norm, *layers = net if isinstance(net, nn.Sequential) else [net]
    if type(norm) is not RunningNorm or not all(map(_has_numpy_version, layers)):
        return None
    origin, mean, std = norm.origin.double().numpy(), norm.mean.numpy(), norm.std.numpy()
    weights = [
        (layer.weight.detach().numpy().T, layer.bias.detach().numpy()) if isinstance(layer, nn.Linear) else None
        for layer in layers
    ]

    def forward(observation: Shaped[np.ndarray, " batch ..."]) -> Float[np.ndarray, " batch out"]:
        x = observation.reshape(len(observation), -1)
        if x.itemsize > 2 and x.dtype != np.float32:  # as ``needs_float64``
            x = x - origin
        x = x.astype(np.float32, copy=False) - mean
        x /= std
        np.minimum(x, CLIP_OBS, out=x)
        np.maximum(x, -CLIP_OBS, out=x)
        for affine in weights:
            if affine is None:
                np.tanh(x, out=x)
            else:
                x = x @ affine[0]
                x += affine[1]
        return x

    return forward


def _has_numpy_version(layer: nn.Module) -> bool:
    # By exact type: a subclass may compute something else.
    return type(layer) is nn.Tanh or (type(layer) is nn.Linear and layer.bias is not None)
