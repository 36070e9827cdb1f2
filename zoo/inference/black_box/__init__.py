"""Black-box variational inference for programs of Pyro."""

from zoo.inference.black_box.elbo import BlackBoxELBO

__all__ = ["BlackBoxELBO"]
