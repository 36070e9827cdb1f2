from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pyro
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

UNCONSTRAINED = "_unconstrained"


class ParameterStore(nn.Module):
    """Module that owns the parameters a program creates with ``pyro.param``, instead of Pyro's global store.

    They are saved, moved and optimized with the module, and programs with equal names do not share them. They are
    unconstrained, as in Pyro's store, which is not changed.

    Example:
        >>> import torch
        >>> from torch.distributions import constraints
        >>> def guide():
        ...     return pyro.param("scale", torch.tensor(2.0), constraint=constraints.positive)
        >>> store = ParameterStore()
        >>> with store.capture():
        ...     _ = guide()
        >>> [name for name, _ in store.named_parameters()], "scale" in pyro.get_param_store()
        (['params.scale_unconstrained'], False)
        >>> with store.activate():
        ...     guide().detach()
        tensor(2.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.params = nn.ParameterDict()
        self.constraints: dict[str, Constraint] = {}
        self.seen: set[str] = set()

    @contextmanager
    def capture(self, *owners: nn.Module) -> Iterator[None]:
        """Capture the parameters that programs create in their first run, except those of modules in ``owners``."""
        with pyro.get_param_store().scope() as state:
            yield
        self.seen = set(state["params"])
        for name in _unowned(state["params"], *owners):
            parameter = state["params"][name]
            is_parameter = isinstance(parameter, nn.Parameter)
            self.params[_parameter_key(name)] = parameter if is_parameter else nn.Parameter(parameter.detach())
            self.constraints[name] = state["constraints"][name]

    @contextmanager
    def activate(self, *owners: nn.Module) -> Iterator[None]:
        """Make ``pyro.param`` use the captured parameters.

        Raises:
            ValueError: a program creates a parameter that did not exist in the first run.
        """
        params: dict[str, Tensor] = {name: self.params[_parameter_key(name)] for name in self.constraints}
        with pyro.get_param_store().scope({"params": params, "constraints": dict(self.constraints)}) as state:
            yield
        new = {name: parameter for name, parameter in state["params"].items() if name not in self.seen}
        if late := _unowned(new, *owners):
            raise ValueError(
                f"the program creates parameter {late[0]!r} after its first run, too late for the optimizer; create "
                "all parameters in every run, before any control flow"
            )
        self.seen |= new.keys()


def _unowned(params: dict[str, Tensor], *owners: nn.Module) -> list[str]:
    """Return the names of the parameters that belong to none of these modules."""
    owned = {id(parameter) for owner in owners for parameter in owner.parameters()}
    return [name for name, parameter in params.items() if id(parameter) not in owned]


def _parameter_key(name: str) -> str:
    """Escape a name for ``ParameterDict``: without dots, and different from its methods."""
    return quote(name, safe=" $").replace(".", "%2E") + UNCONSTRAINED
