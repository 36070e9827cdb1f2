import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from zoo.gradients.graphs._provenance.callbacks import (
    COMPILATION,
    DEPENDS_ON_VALUES,
    HOOKS,
    OF_TORCH,
    OperatorMode,
    below_other_modes,
    may_run_python,
    reads,
)
from zoo.gradients.graphs._provenance.constructors import CONSTRUCTORS, FUNCTIONAL
from zoo.gradients.graphs._provenance.control_flow import CONSTRAINTS, tensors_in, told, within_a_check
from zoo.gradients.graphs._provenance.error_handlers import error_is_handled
from zoo.gradients.graphs._provenance.names import NO_NAMES, Names, quote_names
from zoo.gradients.graphs._provenance.op_semantics import WRITE_STATISTICS, Kind, kind_of
from zoo.gradients.graphs._provenance.patches import Patches
from zoo.gradients.graphs._provenance.threads import THREADS
from zoo.gradients.graphs._provenance.torchscript import (
    SCRIPTS,
    calls_python,
    replaces_attributes,
    run,
    state_of,
    tells,
)
from zoo.gradients.graphs._provenance.views import Place, ViewNames, is_no_grad_view, is_wrapped, unwrap

# In C, as these are asked of every tensor that passes.
storage_address = torch._C._storage_address  # type: ignore[attr-defined]
data_address = torch._C._data_address  # type: ignore[attr-defined]
# Among the names of a tensor: it was computed, while gradients were off, from one that needs a gradient.
NO_GRAD: Names = frozenset(["without its gradient"])
# It was computed, while they were on, from a view that was made so.
CUT_VIEW: Names = frozenset(["from a view without its gradient"])
LOST = NO_GRAD | CUT_VIEW
State = tuple[Place, object]
unseen_calls = Patches([*SCRIPTS, *CONSTRUCTORS, *THREADS, *HOOKS, *COMPILATION])


class _SetAside(threading.local):
    """Counts how often a thread has entered it."""

    depth = 0

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *error: Any) -> None:
        self.depth -= 1


class Provenance(TorchFunctionMode):
    """Knows, while it is entered, which named values every tensor was computed from.

    Every torch function passes here. What it returns was computed from all that its arguments were computed from;
    what it writes to, too, together with all that shares its memory. A value that is turned into a Python object
    (``item``, ``bool``, an index, an array) or into a shape (the number of non-zero elements, a slice) may steer
    whatever comes later: its names are added to ``escaped``. So are those of what a function raised an error for, or
    could have, where the program handles the error; and those of what is written to memory that others share, such as
    an array's. A call of TorchScript counts as one function of its arguments and of the buffers of its module. Python
    code that torch runs inside a function, such as a hook, a custom operator or a branch of ``torch.cond``, is followed
    by the operators that it calls. Threads that the program starts are followed, and tasks that it gives to a
    ``ThreadPoolExecutor`` or a ``ThreadPool``; other threads from before, such as those that wait at a queue, and
    callbacks of a ``ThreadPool`` are not.

    Raises:
        ValueError: memory of a marked tensor is handed to where it cannot be followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._escaped: set[str] = set()  # whose update no other thread can come in between
        self.escapes_suppressed = _SetAside()
        """Notes no escapes of the thread that has entered it, but those of others."""
        self.lost_gradients = False
        """Something was computed, while gradients were off, from a tensor that needs one."""
        # A weak reference lets memory go, but keeps its address from being given to another.
        self._storages: dict[Place, tuple[StorageWeakRef, Names]] = {}
        self._pointers: dict[int, Place] = {}
        self._room = 10_000
        self._exposed: dict[Place, StorageWeakRef] = {}
        self._views = ViewNames()

    def __enter__(self) -> "Provenance":
        unseen_calls.enter(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        unseen_calls.leave()

    def of(self, value: Any) -> Names:
        """Names of what a value, or the tensors in it, were computed from."""
        return self._of_tensors(tensors_in(value)) - LOST

    def has_lost_gradient(self, tensor: Tensor) -> bool:
        """Return whether a tensor was computed under ``torch.no_grad()`` from one that needs a gradient.

        What is computed outside from such a tensor and from others has the gradient of these. What is computed outside
        from a view that was made there says that it has a gradient, and has lost it; until it is detached on purpose.
        """
        with untracked():
            return self._is_cut(tensor) or (not tensor.requires_grad and self._of_tensors([tensor]) >= NO_GRAD)

    def uses_no_grad_view(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether one of some tensors says that it requires a gradient, but lost it in a view made there."""
        with untracked():
            return self.lost_gradients and any(map(self._is_cut, tensors))

    @property
    def escaped(self) -> Names:
        """Names of the values that became Python objects."""
        return frozenset(self._escaped)

    @escaped.setter
    def escaped(self, names: Names) -> None:
        self._escaped = set(names)

    def escape(self, names: Names) -> None:
        """Note that values became Python objects."""
        if not self.escapes_suppressed.depth:
            self._escaped.update(names)

    def mark(self, tensor: Tensor, names: Iterable[str]) -> None:
        """Note that a tensor, and all that shares its memory, was computed from named values and no others."""
        self._storages.pop(place := address(tensor), None)
        self._mark(tensor, place, frozenset(names))

    def paused(self) -> AbstractContextManager[Any]:
        """Follow nothing for a while; unless there is another mode, which is to miss nothing."""
        return untracked() if torch._C._len_torch_function_stack() == 1 else nullcontext()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call a torch function, and note what its results were computed from."""
        kwargs = kwargs or {}
        kind = kind_of(func)
        if kind.harmless:
            return func(*args, **kwargs)
        call = func
        if self._storages and (kind.runs_python or may_run_python(types, args, kwargs)):
            call = functools.partial(self._observe, func)
        return self._follow(func, call, kind, types, args, kwargs, sys._getframe(1))

    def _follow(
        self,
        func: Callable[..., Any],
        call: Callable[..., Any],
        kind: Kind,
        types: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        caller: FrameType,
    ) -> Any:
        is_check = caller.f_globals is CONSTRAINTS and within_a_check(caller)
        if is_check and not error_is_handled(caller):
            return call(*args, **kwargs)
        given = tensors_in((args, kwargs)) if kwargs else tensors_in(args)
        before = states(given)
        names = self._of(given, before)
        if not torch.is_grad_enabled() and not kind.detaches and any([tensor.requires_grad for tensor in given]):
            names |= NO_GRAD
            self.lost_gradients = True
        if self.lost_gradients:
            is_cut = torch.is_grad_enabled() and not kind.detaches and any(map(self._is_cut, given))
            names = names | CUT_VIEW if is_cut else names - CUT_VIEW
        if not names:
            if kind.unseen:
                self._expose(given)
            result = call(*args, **kwargs)
            if self._views.by_storage and call is func:
                self._keep_apart(result)
            return result
        if kind.unseen and not names <= LOST:
            refuse_the_unseen(kind.name, names - LOST)
        # A tensor's own class (of ``types``) may do more than torch does.
        if is_check or ((kind.may_raise or types not in OF_TORCH) and error_is_handled(caller)):
            self._escape(names)
        try:
            result = call(*args, **kwargs)
        except Exception:
            self._escape(names)
            raise
        if (kind.tells or not isinstance(result, Tensor)) and (looked_at := told(func, args, kwargs, result)):
            self._escape(self._of_tensors(looked_at))
        if (kind.may_write or kwargs) and ((after := states(given)) != before or kind.writes_untold):
            self._mark_written(kind, names, given, before, after)
        self._mark_results(kind, names, given, before, result)
        return result

    def follow_operator(
        self,
        func: Callable[..., Any],
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        met: Callable[[], Names],
    ) -> Any:
        """Call an operator that torch executes inside a function, and note what its results were computed from.

        Args:
            func: the operator.
            call: calls it.
            args: its arguments.
            kwargs: its arguments by name.
            met: returns names of what operators within it were given, for one that combines their results unseen.
        """
        kind = kind_of(func)._replace(detaches=True)  # gradients are a matter of the function around it
        if any(tag in DEPENDS_ON_VALUES for tag in getattr(func, "tags", ())):
            self._escape(self.of((args, kwargs)))
        result = self._follow(func, call, kind, OF_TORCH[0], args, kwargs, sys._getframe(2))
        if isinstance(func, HigherOrderOperator) and (names := met()):
            self._mark_results(kind, names, [], [], result)
        return result

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Follow every operator, as the Python code that torch runs inside a function calls them."""
        reads.enter(self)
        try:
            with below_other_modes(OperatorMode(self)):
                yield
        finally:
            reads.leave()

    def _observe(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self.observing():
            return func(*args, **kwargs)

    def follow_script(
        self, call: Callable[..., Any], script: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call TorchScript, and note what its results were computed from."""
        with untracked():  # as torch does it when it comes here
            state = state_of(script)
            names = self.of((args, kwargs, state))
            if names and replaces_attributes(script):
                refuse_the_unseen("a module of TorchScript that keeps what it is given", names)
            followed = functools.partial(self._observe, run) if self._storages and calls_python(script) else run
            given = (call, script, args, kwargs, state)
            result = self._follow(run, followed, kind_of(run), OF_TORCH[0], given, {}, sys._getframe())
            if tells(result):
                self.escape(names)
        return result

    def follow_constructor(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a constructor that torch shows to no mode, and note what its result was computed from."""
        with untracked():
            if call.__name__ == FUNCTIONAL and (names := self.of(args)):
                raise ValueError(
                    f"torch.func.functionalize cannot be tracked, and its input depends on {quote_names(names)}; call "
                    "the function itself"
                )
            return self.__torch_function__(call, (), args, kwargs)

    def _is_cut(self, tensor: Tensor) -> bool:
        return tensor.requires_grad and (is_no_grad_view(tensor) or self._of_tensors([tensor]) >= CUT_VIEW)

    def _escape(self, names: Names) -> None:
        if names := names - LOST:
            self.escape(names)

    def _of_tensors(self, tensors: list[Tensor]) -> Names:
        return self._of(tensors, [(address(tensor), 0) for tensor in tensors])

    def _of(self, tensors: list[Tensor], states: list[State]) -> Names:
        found, views = NO_NAMES, self._views.by_storage
        for tensor, (place, _) in zip(tensors, states, strict=True):
            if place in self._storages:
                _, names = self._storages[place]
                found = found | names if found else names
            elif place is not None and pointer(tensor) in self._pointers:
                self._refuse_an_alias(tensor)
            if views and place in views:
                found |= self._views.of(tensor, place)
        return found

    def _mark(self, tensor: Tensor, place: Place, names: Names) -> None:
        if place is None and names <= LOST:  # only a law of it would be refused, and none takes sparse ones
            return
        if place in self._storages:
            reference, known = self._storages[place]
            self._storages[place] = (reference, known | names)
        else:
            self._storages[place] = (StorageWeakRef(storage_of(tensor, names)), names)
            if begin := pointer(tensor):
                self._pointers[begin] = place
            if len(self._storages) > self._room:
                self._forget_the_dead()
        if place in self._exposed:
            self._escape(names)

    def _mark_view(self, tensor: Tensor, place: Place, names: Names, shown: list[Tensor]) -> None:
        _, known = self._storages.get(place, (None, NO_NAMES))
        if names <= known:
            if place in self._views.by_storage:
                self._views.keep_apart(tensor)
            return
        for other in shown:
            if other is not tensor:
                self._views.keep(other, place)
        self._views.mark(tensor, place, names, storage_of)

    def _keep_apart(self, result: Any) -> None:
        """Note of what a function returned that it has no names but those of its memory."""
        for tensor in (result,) if type(result) is Tensor else tensors_in(result):
            if address(tensor) in self._views.by_storage:
                self._views.keep_apart(tensor)

    def _mark_written(
        self, kind: Kind, names: Names, given: list[Tensor], before: list[State], after: list[State]
    ) -> None:
        for tensor, earlier, now in zip(given, before, after, strict=True):
            learned = kind.name.startswith(WRITE_STATISTICS) and tensor.requires_grad
            if now != earlier or (kind.writes_untold and not learned):
                # What is written without a gradient to a tensor that needs one, as optimizers do, is a new start.
                self._mark(tensor, address(tensor), names - NO_GRAD if tensor.requires_grad else names)
                if not storage_of(tensor, names).resizable():  # but an array's, say
                    self._escape(names)

    def _mark_results(self, kind: Kind, names: Names, given: list[Tensor], before: list[State], result: Any) -> None:
        if kind.like_the_first:
            names = self._of(given[1:], before[1:])
        places = [place for place, _ in before]
        for tensor in (result,) if type(result) is Tensor else tensors_in(result):
            place = address(tensor)
            added = names
            if self.lost_gradients and not (tensor.is_floating_point() or tensor.is_complex()):
                added = names - LOST  # it has none to lose
            if place not in places or is_wrapped(tensor):  # a wrapper is thrown away, its memory stays
                self._mark(tensor, place, added)
            else:  # the memory itself was computed from less
                shown = [t for t, there in zip(given, places, strict=True) if there == place]
                if kind.one_by_one:
                    added = self._of_tensors(shown) | added & LOST
                if added >= NO_GRAD and (is_no_grad_view(tensor) or any(tensor is other for other in shown)):
                    added = added - NO_GRAD  # it shows that itself, or was returned as it is, with its gradient
                self._mark_view(tensor, place, added, shown)

    def _expose(self, tensors: list[Tensor]) -> None:
        """Remember whose memory others can read: harmless until something marked is written there."""
        for tensor in tensors:
            self._exposed[address(tensor)] = StorageWeakRef(storage_of(tensor))

    def _refuse_an_alias(self, tensor: Tensor) -> None:
        """Raise an error for memory that was handed around where it was not seen, and has come back."""
        reference, names = self._storages[self._pointers[pointer(tensor)]]
        if not reference.expired() and not names <= self.escaped:
            refuse_the_unseen("__dlpack__", names)

    def _forget_the_dead(self) -> None:
        self._storages = {place: kept for place, kept in self._storages.items() if not kept[0].expired()}
        self._pointers = {pointer: place for pointer, place in self._pointers.items() if place in self._storages}
        self._views.forget_the_dead()
        self._room = 2 * len(self._storages) + 10_000


def untracked() -> AbstractContextManager[Any]:
    """Let torch functions pass unseen."""
    return torch._C.DisableTorchFunction()


def states(tensors: list[Tensor]) -> list[State]:
    """Tell where tensors' values are, and how often they were written to.

    Inference tensors do not count this, and are taken to be written to by every function that is given them.
    """
    try:
        return [(storage_address(tensor), tensor._version) for tensor in tensors]
    except RuntimeError:
        return [(address(tensor), object() if tensor.is_inference() else tensor._version) for tensor in tensors]


def address(tensor: Tensor) -> Place:
    """Identify the memory of a tensor; None where it has none of its own, as a sparse one."""
    try:
        return storage_address(tensor)
    except NotImplementedError:
        return address(unwrap(tensor)) if is_wrapped(tensor) else None


def pointer(tensor: Tensor) -> int:
    """Tell where the memory of a tensor that has an address begins; 0 if it has no elements."""
    try:
        return data_address(tensor)
    except NotImplementedError:
        return pointer(unwrap(tensor))


def storage_of(tensor: Tensor, names: Names = NO_NAMES) -> torch.UntypedStorage:
    """Find the memory of a tensor that was computed from named values."""
    try:
        if not torch._C._len_torch_function_stack():
            return tensor.untyped_storage()
        with untracked():  # by others, too, that were entered before
            return tensor.untyped_storage()
    except NotImplementedError:
        if is_wrapped(tensor):
            return storage_of(unwrap(tensor), names)
        raise ValueError(
            f"a tensor of {quote_names(names)} has no storage (as sparse tensors) and cannot be tracked; use dense "
            "tensors"
        ) from None


def refuse_the_unseen(name: str, names: Names) -> None:
    """Raise an error if a torch function takes values to where they cannot be followed."""
    if name != "backward":
        raise ValueError(
            f"{name} hands the memory of {quote_names(names)} to where it cannot be followed; copy the values with "
            "tolist() or numpy() instead"
        )
    raise ValueError(
        f"backward leaves gradients that depend on {quote_names(names)} where they cannot be followed; take them from "
        "torch.autograd.grad instead"
    )
