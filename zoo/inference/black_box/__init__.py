"""Black-box variational inference for programs of Pyro."""

from zoo.inference.black_box.elbo import BlackBoxELBO
from zoo.inference.black_box.nonreparameterized import NonReparameterized

__all__ = ["BlackBoxELBO", "NonReparameterized"]
