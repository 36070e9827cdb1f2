import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.gradients.graphs._provenance import torch_internals as internals
from zoo.gradients.graphs._provenance.callbacks import (
    TORCH_TYPES,
    OperatorMode,
    below_other_modes,
    may_run_python,
    run_within,
)
from zoo.gradients.graphs._provenance.control_flow import (
    TORCH_CONSTRAINTS_GLOBALS,
    control_flow_inputs,
    in_argument_check,
    tensors_in,
)
from zoo.gradients.graphs._provenance.error_handlers import error_is_handled
from zoo.gradients.graphs._provenance.names import (
    GRADIENT_LABELS,
    NO_GRAD,
    NO_GRAD_VIEW,
    Names,
    quote_names,
)
from zoo.gradients.graphs._provenance.op_semantics import UPDATE_STATISTICS, OpSemantics, semantics_of
from zoo.gradients.graphs._provenance.patches import Patches
from zoo.gradients.graphs._provenance.shadow_memory import (
    Address,
    ShadowMemory,
    State,
    address_of,
    is_no_grad_view,
    raise_untrackable,
    states,
    storage_of,
)
from zoo.gradients.graphs._provenance.threads import THREADS

_DATA_DEPENDENT = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_unseen_calls = Patches([*internals.UNSEEN_FUNCTIONS, *THREADS])


class _IgnoringControlFlow(threading.local):
    """Context in which this thread adds no control dependencies; other threads do."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *error: Any) -> None:
        self.depth -= 1


class Provenance(TorchFunctionMode):
    """Taint tracker: while it is entered, it records which named values every tensor was computed from.

    Every call of a torch function is intercepted. Its results, and all tensors that share the memory it writes to, get
    the names of all its arguments. A tensor with names is called marked. A value that becomes a Python object
    (``item``, ``bool``, an index, an array) or a shape (the number of non-zero elements, a slice) may control whatever
    comes later, an implicit flow: its names are added to ``control_dependencies``. If the program handles the error of
    a function that raised one, or could have, the names of the function's arguments are added. The names of what is
    written to memory that is not torch's own, such as an array's, are added as well.

    A call of TorchScript is one function of its arguments and of the buffers of its module. The operators that it calls
    are tracked, too, since it may assign to attributes; and so are those of Python code that torch runs inside of a
    function: a hook, a custom operator, a branch of ``torch.cond``. Threads that the program starts are tracked, and
    tasks that it submits to a ``ThreadPoolExecutor`` or a ``ThreadPool``; other threads that exist already, and
    callbacks of a ``ThreadPool``, are not. Memory of a marked tensor that is exposed where it cannot be tracked is an
    error.
    """

    def __init__(self) -> None:
        internals.check_torch()
        super().__init__()
        self._control_dependencies: set[str] = set()  # updated in place, which is atomic among threads
        self.ignoring_control_flow = _IgnoringControlFlow()
        self.lost_gradients = False
        """Whether anything was computed under no_grad from a tensor that requires a gradient."""
        self._memory = ShadowMemory()

    def __enter__(self) -> "Provenance":
        _unseen_calls.enter(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _unseen_calls.leave()

    def names_of(self, value: Any) -> Names:
        """Return the names of all tensors in a value."""
        return self._names_of_tensors(tensors_in(value)) - GRADIENT_LABELS

    def has_lost_gradient(self, tensor: Tensor) -> bool:
        """Return whether the gradient of a tensor was lost under ``torch.no_grad()``.

        The gradient is lost if the tensor was computed under ``no_grad`` from one that requires a gradient, or if it
        was computed later from such a tensor and no other input makes it require a gradient. The gradient of a
        view that was created under ``no_grad`` is lost, too, and so is that of tensors computed from the view, although
        ``requires_grad`` is True for all of these. The result of ``detach()`` has lost no gradient: it is meant to be
        constant.
        """
        with internals.untracked():
            if tensor.requires_grad:
                return self._uses_no_grad_view(tensor)
            return self._names_of_tensors([tensor]) >= NO_GRAD

    def uses_no_grad_view(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether a tensor that requires a gradient is, or was computed from, a view created under no_grad."""
        with internals.untracked():
            return self.lost_gradients and any(map(self._uses_no_grad_view, tensors))

    @property
    def control_dependencies(self) -> Names:
        """Names of the values on which the control flow so far may depend."""
        return frozenset(self._control_dependencies)

    @control_dependencies.setter
    def control_dependencies(self, names: Names) -> None:
        self._control_dependencies = set(names)

    def add_control_dependencies(self, names: Names) -> None:
        """Record that the control flow from now on may depend on values."""
        if not self.ignoring_control_flow.depth:
            self._control_dependencies.update(names)

    def set_names(self, tensor: Tensor, names: Iterable[str]) -> None:
        """Replace the names of a tensor and of all tensors that share its memory."""
        self._memory.storages.pop(address := address_of(tensor), None)
        self._mark(tensor, address, frozenset(names))

    def paused(self) -> AbstractContextManager[Any]:
        """Return a context that pauses tracking.

        With other torch function modes active it does nothing, since pausing would disable them, too.
        """
        return internals.untracked() if internals.num_function_modes() == 1 else nullcontext()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        semantics = semantics_of(func)
        if semantics.metadata_only:
            return func(*args, **kwargs)
        call = func
        if self._memory.storages and (semantics.runs_python or may_run_python(types, args, kwargs)):
            call = self.track_operators_in(func)
        return self._propagate(func, call, semantics, types, args, kwargs, sys._getframe(1))

    def _propagate(
        self,
        func: Callable[..., Any],
        call: Callable[..., Any],
        semantics: OpSemantics,
        types: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        caller: FrameType,
    ) -> Any:
        """Call a function, and add the names of its arguments to its results and to the tensors that it wrote to.

        Whether the function raises an error may depend on values, too. Where the program handles the error, these
        values decide which code runs next: the handler, or the code after the call. They are then added to the control
        dependencies in both cases, unless the function raises no errors that depend on values.
        """
        # A distribution checks its parameters. Such a check decides whether an error is raised, and nothing else.
        is_check = caller.f_globals is TORCH_CONSTRAINTS_GLOBALS and in_argument_check(caller)
        if is_check and not error_is_handled(caller):
            return call(*args, **kwargs)
        inputs = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        before = states(inputs)
        names = self._memory.names_of(inputs, before, self._control_dependencies)
        if not torch.is_grad_enabled() and not semantics.detaches and any([tensor.requires_grad for tensor in inputs]):
            names |= NO_GRAD
            self.lost_gradients = True
        if self.lost_gradients:
            # A result has the label of no_grad views only if it is computed from such a view while gradients are
            # enabled.
            may_require_grad = torch.is_grad_enabled() and not semantics.detaches
            from_view = may_require_grad and any(map(self._uses_no_grad_view, inputs))
            names = names | NO_GRAD_VIEW if from_view else names - NO_GRAD_VIEW
        if not names:  # as in most calls
            if semantics.opaque:
                for tensor in inputs:
                    self._memory.record_exposed(tensor, address_of(tensor))
            result = call(*args, **kwargs)
            if call is func and self._memory.views.by_storage:
                for tensor in (result,) if type(result) is Tensor else tensors_in(result):
                    if address_of(tensor) in self._memory.views.by_storage:  # only the names of its storage apply
                        self._memory.views.register(tensor)
            return result
        if semantics.opaque and not names <= GRADIENT_LABELS:
            raise_untrackable(semantics.name, names - GRADIENT_LABELS)
        # A subclass of Tensor, which is then in ``types``, may raise errors that torch does not.
        if is_check or ((semantics.may_raise or types not in TORCH_TYPES) and error_is_handled(caller)):
            self._add_control_dependencies(names)
        try:
            result = call(*args, **kwargs)
        except Exception:
            self._add_control_dependencies(names)
            raise
        if (semantics.data_dependent or not isinstance(result, Tensor)) and (
            sources := control_flow_inputs(func, args, kwargs, result)
        ):
            self._add_control_dependencies(self._names_of_tensors(sources))
        if (semantics.may_write or kwargs) and ((after := states(inputs)) != before or semantics.hidden_write):
            self._mark_written(semantics, names, inputs, before, after)
        self._mark_results(semantics, names, inputs, before, result)
        return result

    def propagate_operator(
        self,
        func: Callable[..., Any],
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        inner_names: Callable[[], Names],
    ) -> Any:
        """Propagate names through an operator that torch calls inside a function.

        ``inner_names`` returns the names of the arguments of all operators inside this one. A higher-order operator
        combines their results where no mode sees it; its own result is therefore given these names, too.
        """
        semantics = semantics_of(func)._replace(detaches=True)  # gradients are those of the function around it
        if any(tag in _DATA_DEPENDENT for tag in getattr(func, "tags", ())):
            self._add_control_dependencies(self.names_of((args, kwargs)))
        result = self._propagate(func, call, semantics, (), args, kwargs, sys._getframe(2))
        if isinstance(func, internals.HigherOrderOperator) and (names := inner_names()):
            self._mark_results(semantics, names, [], [], result)
        return result

    def propagate_script(
        self, call: Callable[..., Any], script: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Propagate names through a call of TorchScript, both as a single function and through the operators in it."""
        with internals.untracked():  # as torch disables a mode inside of its ``__torch_function__``
            inputs = (call, script, args, kwargs, internals.script_buffers(script))
            tracked_call = self.track_operators_in(_call_script) if self._memory.storages else _call_script
            semantics = semantics_of(_call_script)
            result = self._propagate(_call_script, tracked_call, semantics, (), inputs, {}, sys._getframe())
            # No mode sees ``tolist`` and ``str`` in a script.
            may_hold_values = not all(isinstance(part, Tensor | None) for part in internals.tree_leaves(result))
            if may_hold_values or script.inlined_graph.findAllNodes("prim::tolist"):
                self.add_control_dependencies(self.names_of(inputs))
        return result

    def propagate_constructor(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Propagate names through a constructor of tensors that no mode sees."""
        with internals.untracked():
            if call.__name__ == internals.FUNCTIONALIZE and (names := self.names_of(args)):
                raise ValueError(
                    f"torch.func.functionalize cannot be tracked, and its input depends on {quote_names(names)}; call "
                    "the function itself"
                )
            return self.__torch_function__(call, (), args, kwargs)

    @contextmanager
    def _tracking_operators(self) -> Iterator[None]:
        internals.conversions.enter(self)
        try:
            with below_other_modes(OperatorMode(self)):
                yield
        finally:
            internals.conversions.leave()

    def track_operators_in(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a function in which torch runs Python code, so that the operators that this code calls are tracked."""
        return run_within(self._tracking_operators, function)

    def _uses_no_grad_view(self, tensor: Tensor) -> bool:
        return tensor.requires_grad and (is_no_grad_view(tensor) or self._names_of_tensors([tensor]) >= NO_GRAD_VIEW)

    def _add_control_dependencies(self, names: Names) -> None:
        if names := names - GRADIENT_LABELS:
            self.add_control_dependencies(names)

    def _names_of_tensors(self, tensors: list[Tensor]) -> Names:
        return self._memory.names_of(
            tensors, [(address_of(tensor), 0) for tensor in tensors], self._control_dependencies
        )

    def _mark(self, tensor: Tensor, address: Address, names: Names) -> None:
        # A tensor without an address is sparse. Lost gradients matter only for parameters of distributions, which are
        # dense.
        if address is None and names <= GRADIENT_LABELS:
            return
        if self._memory.mark(tensor, address, names):
            self._add_control_dependencies(names)

    def _mark_written(
        self, semantics: OpSemantics, names: Names, inputs: list[Tensor], before: list[State], after: list[State]
    ) -> None:
        for tensor, old, new in zip(inputs, before, after, strict=True):
            # A normalization layer writes to its running statistics, not to its weights.
            is_weight = semantics.name.startswith(UPDATE_STATISTICS) and tensor.requires_grad
            if new != old or (semantics.hidden_write and not is_weight):
                # An in-place write to a leaf under no_grad (an optimizer's update) is intended: no gradient is lost.
                self._mark(tensor, address_of(tensor), names - NO_GRAD if tensor.requires_grad else names)
                if not storage_of(tensor, names).resizable():  # owned by another library, such as an array's
                    self._add_control_dependencies(names)

    def _mark_results(
        self, semantics: OpSemantics, names: Names, inputs: list[Tensor], before: list[State], result: Any
    ) -> None:
        if semantics.like_first_arg:
            names = self._memory.names_of(inputs[1:], before[1:], self._control_dependencies)
        addresses = [address for address, _ in before]
        for tensor in (result,) if type(result) is Tensor else tensors_in(result):
            address = address_of(tensor)
            added = names
            if self.lost_gradients and not (tensor.is_floating_point() or tensor.is_complex()):
                added = names - GRADIENT_LABELS  # integers have no gradient to lose
            if address not in addresses or internals.is_wrapped(tensor):  # a wrapper is temporary, its memory is not
                self._mark(tensor, address, added)
            else:  # a view, which may depend on more names than its storage
                sources = [t for t, source_address in zip(inputs, addresses, strict=True) if source_address == address]
                if semantics.one_view_per_argument:
                    added = self._names_of_tensors(sources) | added & GRADIENT_LABELS
                if added >= NO_GRAD and (is_no_grad_view(tensor) or any(tensor is source for source in sources)):
                    added = added - NO_GRAD  # is_no_grad_view detects it, or the argument itself was returned
                self._memory.mark_view(tensor, address, added, sources)


def _call_script(
    call: Callable[..., Any],
    script: Any,
    args: tuple[Tensor | Any, ...],
    kwargs: Mapping[str, Tensor | Any],
    buffers: list[Tensor],
) -> Any:
    """Call a script, with its buffers as an argument, since it may read them and write to them.

    The annotations contain ``Tensor`` so that ``op_semantics.integer_arguments`` does not take the arguments for sizes.
    """
    return call(script, *args, **kwargs)
