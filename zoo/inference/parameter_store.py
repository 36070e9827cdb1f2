from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pyro
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

UNCONSTRAINED = "_unconstrained"


class ParameterStore(nn.Module):
    """Keeps what programs make with ``pyro.param``, in place of Pyro's global store, which stays as it is.

    So the parameters are a module's: they are saved, moved and optimised with it, and programs that use the same names
    do not share them. They are unconstrained, as in Pyro's store.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> def guide():
        ...     return pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        >>> store = ParameterStore()
        >>> with store.adopting():
        ...     _ = guide()
        >>> [name for name, _ in store.named_parameters()], "scale" in pyro.get_param_store()
        (['kept.scale_unconstrained'], False)
        >>> with store.opened():
        ...     guide().detach()
        tensor(2.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept = nn.ParameterDict()
        self.constraints: dict[str, Constraint] = {}
        self.met: set[str] = set()

    @contextmanager
    def adopting(self, *owners: nn.Module) -> Iterator[None]:
        """Run programs for the first time, and keep the parameters they make, but for those of modules."""
        with pyro.get_param_store().scope() as state:
            yield
        self.met = set(state["params"])
        for name in strangers(state["params"], *owners):
            parameter = state["params"][name]
            is_parameter = isinstance(parameter, nn.Parameter)
            self.kept[key_of(name)] = parameter if is_parameter else nn.Parameter(parameter.detach())
            self.constraints[name] = state["constraints"][name]

    @contextmanager
    def opened(self, *owners: nn.Module) -> Iterator[None]:
        """Let ``pyro.param`` find the parameters that were kept, and no others.

        Raises:
            ValueError: a program makes a parameter that was not there when it first ran.
        """
        params: dict[str, Tensor] = {name: self.kept[key_of(name)] for name in self.constraints}
        with pyro.get_param_store().scope({"params": params, "constraints": dict(self.constraints)}) as state:
            yield
        new = {name: parameter for name, parameter in state["params"].items() if name not in self.met}
        if late := strangers(new, *owners):
            raise ValueError(
                f"the program makes the parameter {late[0]!r} only now, too late for the optimizer; make all "
                "parameters in every run, before any way is chosen"
            )
        self.met |= new.keys()


def strangers(params: dict[str, Tensor], *owners: nn.Module) -> list[str]:
    """Name the parameters that are of none of these modules."""
    owned = {id(parameter) for owner in owners for parameter in owner.parameters()}
    return [name for name, parameter in params.items() if id(parameter) not in owned]


def key_of(name: str) -> str:
    """Key among parameters, whose names can hold no dot, and must not be those of a dictionary's methods."""
    return quote(name, safe=" $").replace(".", "%2E") + UNCONSTRAINED
