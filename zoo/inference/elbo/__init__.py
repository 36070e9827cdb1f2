"""Black-box variational inference for programs of Pyro."""

from zoo.inference.elbo.black_box_elbo import BlackBoxELBO
from zoo.inference.elbo.nonreparameterized import NonReparameterized

__all__ = ["BlackBoxELBO", "NonReparameterized"]
