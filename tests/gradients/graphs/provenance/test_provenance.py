"""All dependencies of costs on samples are tracked; metadata creates none."""

import contextlib
import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import (
    Bernoulli,
    Binomial,
    Categorical,
    Distribution,
    Geometric,
    Independent,
    MixtureSameFamily,
    Normal,
    constraints,
    kl_divergence,
)
from torch.multiprocessing.reductions import StorageWeakRef

from zoo.gradients.graphs import trace
from zoo.gradients.graphs._provenance.provenance import Provenance

pytestmark = pytest.mark.usefixtures("without_type_checks")  # for speed

# The sampled value is 2, of three; `x` is an integer, `u` the vector (0, 2, 4), a bit in each.
VALUE = 2


def influenced(make_cost):
    """Return whether a cost depends on a sampled integer, and the control dependencies of the run."""

    def program(graph, theta):
        x = graph.sample("x", Categorical(logits=theta))
        cost = make_cost(x, theta)
        graph.cost("f", cost.double().sum() if isinstance(cost, torch.Tensor) else float(cost))

    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    graph = trace(program, theta, draw=lambda *_: torch.tensor(VALUE))
    (run,) = graph.runs
    return graph.influences("x") == {"f"}, run.provenance.control_dependencies


def cases(**functions):
    return pytest.mark.parametrize("make_cost", functions.values(), ids=[name.replace("_", " ") for name in functions])


class TestControlDependencies:
    """The cost depends on the sample only through a Python object or a shape."""

    @cases(
        item=lambda x, t: x.item(),
        bool=lambda x, t: 1.0 if x else 2.0,
        bool_of_a_comparison=lambda x, t: 1.0 if x > 1 else 2.0,
        while_loop=lambda x, t: next(n for n in range(9) if not x > n),
        short_circuit=lambda x, t: (x > 5 and 1.0) or 2.0,
        int=lambda x, t: int(x),
        float=lambda x, t: float(x),
        complex=lambda x, t: complex(x).real,
        round=lambda x, t: round(x.item()),
        list_index=lambda x, t: [3.0, 4.0, 5.0][x],
        range=lambda x, t: len(range(x)),
        tolist=lambda x, t: x.tolist(),
        numpy=lambda x, t: x.numpy(),
        numpy_asarray=lambda x, t: np.asarray(x),
        numpy_array_of_it=lambda x, t: np.array([x, 3]).sum(),
        numpy_memory=lambda x, t: read_by_numpy(x),
        f_string=lambda x, t: float(f"{x}"),
        format=lambda x, t: float(f"{x.float():.1f}"),
        repr=lambda x, t: len(repr(x)),
        in_a_list=lambda x, t: x in [0, 2],
        in_a_tensor=lambda x, t: 2 in x[None],
        equal=lambda x, t: torch.equal(x, torch.tensor(2)),
        allclose=lambda x, t: torch.allclose(x.float(), torch.tensor(2.0)),
        is_nonzero=lambda x, t: torch.is_nonzero(x),
        dict_lookup=lambda x, t: {0: 1.0, 2: 3.0}[x.item()],
        max=lambda x, t: [1.0, 2.0][max(x, torch.tensor(1)) is x],
        sorted=lambda x, t: sorted([x, torch.tensor(1)])[0],
        elements_of_an_iteration=lambda x, t: next(int(v) for v in x[None]),
        apply=lambda x, t: seen_by_apply(x),
        size=lambda x, t: torch.Size((x,)).numel(),
        through_a_function_of_numpy=lambda x, t: ThroughNumpy.apply(x.float() * t[0]),
    )
    def test_conversion_to_python_is_a_control_dependency(self, make_cost):
        assert influenced(make_cost) == (True, {"x"})

    @cases(
        nonzero=lambda x, t: len(torch.nonzero(torch.arange(3) * x)),
        nonzero_as_tuple=lambda x, t: len((torch.arange(3) < x).nonzero(as_tuple=True)[0]),
        argwhere=lambda x, t: len(torch.argwhere(torch.arange(3) < x)),
        where=lambda x, t: len(torch.where(torch.arange(3) < x)[0]),
        mask=lambda x, t: len(t[torch.arange(3) < x]),
        mask_among_indices=lambda x, t: t[None][0, torch.arange(3) < x].numel(),
        masked_select=lambda x, t: t.masked_select(torch.arange(3) < x).numel(),
        slice=lambda x, t: len(t[:x]),
        slice_among_indices=lambda x, t: t[None][0, x:].numel(),
        unique=lambda x, t: len(torch.stack([x, torch.tensor(2)]).unique()),
        unique_function=lambda x, t: len(torch.unique(torch.stack([x, torch.tensor(2)]))),
        unique_consecutive=lambda x, t: len(torch.unique_consecutive(torch.stack([x, torch.tensor(2)]))),
        bincount=lambda x, t: len(torch.bincount(x[None])),
        repeat_interleave=lambda x, t: len(t.repeat_interleave(x)),
        repeat_interleave_alone=lambda x, t: len(torch.repeat_interleave(x[None])),
        arange=lambda x, t: len(torch.arange(x)),
        zeros=lambda x, t: len(torch.zeros(x)),
        ones_of_a_tuple=lambda x, t: len(torch.ones((x, 2))),
        full=lambda x, t: len(torch.full((x,), 7.0)),
        eye=lambda x, t: len(torch.eye(x)),
        linspace=lambda x, t: len(torch.linspace(0, 1, x)),
        new_zeros=lambda x, t: len(t.new_zeros(x)),
        new_full=lambda x, t: len(t.new_full((x,), 1.0)),
        expand=lambda x, t: len(torch.ones(1).expand(x)),
        repeat=lambda x, t: len(t.repeat(x)),
        tile=lambda x, t: len(t.tile(x)),
        narrow=lambda x, t: len(t.narrow(0, 0, x)),
        split=lambda x, t: len(t.split(x)),
        chunk=lambda x, t: len(t.chunk(x)),
        reshape=lambda x, t: len(torch.ones(6).reshape(x, -1)),
        view=lambda x, t: len(torch.ones(6).view(x, -1)),
        pad=lambda x, t: len(nn.functional.pad(t, (0, x))),
        one_hot=lambda x, t: len(nn.functional.one_hot(x)),
        topk=lambda x, t: len(t.topk(x).values),
        tensor_split=lambda x, t: len(t.tensor_split(x)),
        permutation=lambda x, t: len(torch.randperm(x)),
        window=lambda x, t: len(torch.hann_window(x)),
        strided=lambda x, t: len(torch.empty_strided((x,), (1,))),
        powers=lambda x, t: torch.vander(t, x).numel(),
        triangle=lambda x, t: torch.tril_indices(x, 2).numel(),
        transform=lambda x, t: len(torch.fft.fft(t, n=x)),
        window_of_a_pool=lambda x, t: nn.functional.max_pool1d(torch.ones(1, 1, 8), x).numel(),
        size_of_a_pool=lambda x, t: nn.functional.adaptive_avg_pool1d(torch.ones(1, 1, 8), x).numel(),
        stride=lambda x, t: nn.functional.conv1d(torch.ones(1, 1, 8), torch.ones(1, 1, 2), stride=x).numel(),
        interpolation=lambda x, t: nn.functional.interpolate(torch.ones(1, 1, 8), size=x).numel(),
        dimension_of_a_sum=lambda x, t: len(torch.ones(2, 3, 4).sum(x)),
        dimension_by_name=lambda x, t: len(torch.ones(2, 3, 4).sum(dim=x)),
        transposed_dimension=lambda x, t: len(torch.ones(2, 3, 4).transpose(0, x)),
        new_dimension=lambda x, t: len(torch.ones(2, 3).unsqueeze(x)),
        flattened_dimensions=lambda x, t: len(torch.ones(2, 3, 4).flatten(0, x)),
        diagonal=lambda x, t: len(torch.ones(4, 4).diagonal(offset=x)),
        support_of_a_distribution=lambda x, t: len(Binomial(x, t[0].exp() / 2).enumerate_support()),
    )
    def test_value_that_determines_a_shape_is_a_control_dependency(self, make_cost):
        assert influenced(make_cost) == (True, {"x"})

    def test_control_dependency_influences_later_nodes_only(self):
        def program(graph, theta):
            x = graph.sample("x", Bernoulli(logits=theta[0]))
            y = graph.sample("y", Bernoulli(logits=theta[1]))
            graph.cost("before", y)
            if x:
                pass
            z = graph.sample("z", Bernoulli(logits=theta[2]))
            graph.cost("after", 2.0)
            graph.cost("last", z)

        graph = trace(program, torch.zeros(3))
        assert graph.influences("x") == {"z", "after", "last"}
        assert graph.influences("y") == {"before"}
        assert graph.influences("z") == {"last"}

    def test_value_that_causes_an_error_is_a_control_dependency(self):
        def program(graph):
            x = graph.sample("x", Bernoulli(0.5))
            with contextlib.suppress(IndexError):
                torch.arange(1)[x.long() + 1]
            graph.cost("f", 1.0)

        assert trace(program).influences("x") == {"f"}

    @cases(
        array=lambda x, t: written_into(np.zeros(3), x),
        bytes=lambda x, t: written_beside(torch.frombuffer(bytearray(24), dtype=torch.float64), x),
        dlpack=lambda x, t: written_beside(torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(board(3))), x),
    )
    def test_write_to_foreign_memory_is_a_control_dependency(self, make_cost):
        assert influenced(make_cost) == (True, {"x"})

    def test_control_flow_of_a_density_is_a_control_dependency(self):
        class Looks(Distribution):
            arg_constraints = {}  # noqa: RUF012
            support = constraints.boolean

            def __init__(self, x):
                super().__init__(validate_args=False)
                self.x = x

            def sample(self, shape=()):
                return torch.zeros(())

            def log_prob(self, value):
                return torch.tensor(-0.5 if self.x.item() else -1.5)

        def program(graph):
            x = graph.sample("x", Bernoulli(0.5))
            graph.sample("y", Looks(x))
            graph.cost("f", 1.0)

        assert trace(program).influences("x") == {"y", "f"}


def written_into(array, x):
    torch.from_numpy(array)[1] = x
    return array[1]


def written_beside(tensor, x):
    tensor[1] = x
    return 1.0


def read_by_numpy(x):
    board = torch.zeros(3)
    array = board.numpy()
    board[1] = x
    return array[1]


def seen_by_apply(x):
    seen = []
    x.clone().apply_(lambda value: seen.append(value) or value)
    return seen[0]


class ThroughNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.asarray(x.detach().numpy() + 2))

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Reversed(torch.autograd.Function):
    """Computes with torch, and returns its input."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


def board(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def written(write, shape=(3,)):
    """A tensor of zeros, after something was written to it."""
    target = board(*shape)
    write(target)
    return target


class Bag:
    """A container that is unknown to torch."""

    def __init__(self, content):
        self.content = content


class TestPropagation:
    """The cost depends on the sample through tensors alone: there are no control dependencies."""

    @cases(
        arithmetic=lambda x, t: 2 * x + t,
        comparison=lambda x, t: x > 1,
        detached=lambda x, t: x.detach(),
        data=lambda x, t: x.data,
        cast=lambda x, t: x.to(torch.int8),
        cloned=lambda x, t: x.clone(),
        deep_copy=lambda x, t: copy.deepcopy(x),
        constant_made_of_it=lambda x, t: torch.tensor([x, 1]),
        as_tensor=lambda x, t: torch.as_tensor([x, 1]),
        filled=lambda x, t: torch.full((2,), x),
        filled_anew=lambda x, t: t.new_full((2,), x),
        full_like=lambda x, t: torch.full_like(t, x),
        index=lambda x, t: t[x],
        index_of_a_view=lambda x, t: t[None][0, x],
        gather=lambda x, t: t.gather(0, x[None]),
        one_hot=lambda x, t: nn.functional.one_hot(x, 3) * t,
        embedding=lambda x, t: nn.functional.embedding(x, t[:, None]),
        where=lambda x, t: torch.where(x > 1, t[0], t[1]),
        einsum=lambda x, t: torch.einsum("i,j->ij", x[None], torch.arange(2)),
        stack=lambda x, t: torch.stack([t[0], x]),
        broadcast=lambda x, t: torch.broadcast_tensors(x, t.detach())[0],
        iteration=lambda x, t: sum(iter(torch.arange(3) * x)),
        unbind=lambda x, t: (torch.arange(3) * x).unbind()[1],
        list=lambda x, t: [t, [x]][1][0],
        tuple=lambda x, t: (x, t)[0],
        dict=lambda x, t: {"x": x}["x"],
        object=lambda x, t: Bag([Bag(x)]).content[0].content,
        closure=lambda x, t: (lambda: x)(),
        module=lambda x, t: nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Dropout(0.5))(x[None].float()) * 0 + 1,
        recurrent_module=lambda x, t: nn.LSTM(1, 2)(x.float().reshape(1, 1))[1][0],
        batch_norm=lambda x, t: trained_batch_norm(x).running_mean,
        attribute_of_a_module=lambda x, t: module_with(x).weight,
        operator=lambda x, t: torch.ops.aten.add(x, 1),
        operator_overload=lambda x, t: torch.ops.aten.mul.Tensor(x, torch.tensor(2)),
        sparse_multiplication=lambda x, t: torch.eye(3).to_sparse() @ (torch.arange(3.0) * x)[:, None],
        autograd=lambda x, t: torch.autograd.grad((t**2 * x).sum(), t)[0] + x * 0,
        vmap=lambda x, t: torch.func.vmap(lambda a: a * 2)(torch.stack([x, x])),
        vmap_over_something_else=lambda x, t: torch.func.vmap(lambda a: a * x)(t.detach()),
        vmap_of_an_index=lambda x, t: torch.func.vmap(lambda a: a[x])(t.detach()[None]),
        functional_gradient=lambda x, t: torch.func.grad(lambda a: (a * x).sum())(t.detach()),
        function=lambda x, t: Doubled.apply(x * t),
        function_that_gives_back_a_view=lambda x, t: Reversed.apply(t[x]),
        distribution=lambda x, t: Normal(x.double(), 1.0).mean,
        compiled=lambda x, t: torch.compile(lambda a, b: (a * b).sin(), backend="eager")(x, t.detach()),
        divergence=lambda x, t: kl_divergence(Bernoulli(probs=x / 4), Bernoulli(probs=x / 5)),
    )
    def test_functions_of_tensors_are_tracked(self, make_cost):
        assert influenced(make_cost) == (True, set())

    @cases(
        add=lambda x, t: written(lambda b: b.add_(x)),
        operator=lambda x, t: written(lambda b: b.__iadd__(x)),
        copy=lambda x, t: written(lambda b: b.copy_(x)),
        fill=lambda x, t: written(lambda b: b.fill_(x)),
        item=lambda x, t: written(lambda b: b.__setitem__(1, x.double())),
        place=lambda x, t: written(lambda b: b.__setitem__(x, 1.0)),
        places=lambda x, t: written(lambda b: b.__setitem__(slice(0, x), 1.0)),
        mask=lambda x, t: written(lambda b: b.__setitem__(torch.arange(3) < x, 1.0)),
        index_put=lambda x, t: written(lambda b: b.index_put_((x[None],), torch.ones(1).double())),
        index_put_copied=lambda x, t: board(3).index_put((x[None],), torch.ones(1).double()),
        scatter=lambda x, t: written(lambda b: b.scatter_(0, x[None], 1.0)),
        masked_fill=lambda x, t: written(lambda b: b.masked_fill_(x > 1, 5.0)),
        map=lambda x, t: written(lambda b: b.map_(board(3) + x, lambda a, c: c)),
        view=lambda x, t: written(lambda b: b[1:].view(2, 1)[0].add_(x)),
        row=lambda x, t: written(lambda b: b[1].copy_(x), (2, 3)),
        transposed=lambda x, t: written(lambda b: b.T.fill_diagonal_(x), (2, 2)),
        unbound=lambda x, t: written(lambda b: b.unbind()[2].add_(x)),
        detached=lambda x, t: written(lambda b: b.detach().add_(x)),
        data=lambda x, t: written(lambda b: b.data.add_(x)),
        out=lambda x, t: written(lambda b: torch.add(x.double(), torch.ones(3).double(), out=b)),
        many=lambda x, t: written(lambda b: torch._foreach_add_([b], [x.double().expand(3)])),
        exchanged_data=lambda x, t: written(lambda b: setattr(b, "data", x.double())),
        exchanged_data_of_a_view=lambda x, t: written(lambda b: setattr(b, "data", t.detach()[x])),
        exchanged_memory=lambda x, t: written(lambda b: b.set_((torch.ones(3) * x).double())),
        optimizer=lambda x, t: trained(x),
        fused_optimizer=lambda x, t: trained(x, fused=True),
    )
    def test_in_place_writes_are_tracked(self, make_cost):
        depends, control_dependencies = influenced(make_cost)
        assert depends
        assert control_dependencies <= {"x"}  # of a map or a slice

    def test_views_made_before_the_write_are_tracked(self):
        def program(graph):
            memory = board(4)
            before, other = memory[1:3], board(4)
            memory[2] = graph.sample("x", Bernoulli(0.5))
            graph.cost("view", before.sum())
            graph.cost("other", other.sum())

        assert trace(program).influences("x") == {"view"}


def trained_batch_norm(x):
    module = nn.BatchNorm1d(1)
    module(torch.arange(3.0)[:, None] * x)
    return module


def module_with(x):
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.copy_(x)
    return module


def trained(x, **how):
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5, **how)
    (weight.grad,) = torch.autograd.grad((weight * x).sum() + (x * weight * 0).sum(), weight)
    optimizer.step()
    return weight.detach()


class TestMetadata:
    """The cost does not depend on the sample, whatever the program does with it on the way."""

    @cases(
        shape=lambda x, t: [x.shape, x.size(), x.ndim, x.dim(), x.numel(), x.stride()] and t[0],
        type=lambda x, t: [x.dtype, x.device, x.layout, x.type(), x.is_floating_point(), x.is_contiguous()] and t[0],
        autograd=lambda x, t: [x.requires_grad, x.grad, x.grad_fn, x.is_leaf] and t[0],
        length=lambda x, t: len(x[None]),
        identity=lambda x, t: (x is t, hash(x) and 0, isinstance(x, torch.Tensor))[1] + t[0],
        zeros_like=lambda x, t: torch.zeros_like(x) + t,
        ones_like=lambda x, t: torch.ones_like(x[None]) + t,
        full_like=lambda x, t: torch.full_like(x, 3) + t,
        new_zeros=lambda x, t: x.new_zeros(3) + t,
        new_full=lambda x, t: x.new_full((3,), 2) + t,
        empty_like=lambda x, t: torch.empty_like(x).copy_(t[0]),
        reshaped=lambda x, t: t + 0 * len(x.reshape(1, 1).expand(3, 2).T),
        masked=lambda x, t: [x[None][torch.tensor([True])], t.sum()][1],
        repeated=lambda x, t: [x[None].repeat_interleave(2), x[None].repeat(3), x[None].split(1), t.sum()][3],
        indexed=lambda x, t: [t[x], t[0]][1],
        filled=lambda x, t: [torch.full((3,), x), t[0]][1],
        broadcast=lambda x, t: torch.broadcast_tensors(x, t.detach())[1],
        meshed=lambda x, t: torch.meshgrid(x[None], torch.arange(3), indexing="ij")[1],
        checked=lambda x, t: [Bernoulli(probs=x / 4), Normal(0.0, x + 1.0), Categorical(logits=t * x), t[0]][3],
        checked_value=lambda x, t: [Categorical(logits=t).log_prob(x), t[0]][1],
        checked_mixture=lambda x, t: [mixture(x).log_prob(torch.tensor(0.5)), t[0]][1],
        sparse_constant=lambda x, t: torch.eye(3).to_sparse().to_dense() + t,
        overwritten_copy=lambda x, t: [x.clone().fill_(0.0), t][1],
        printed_shape=lambda x, t: [f"{x.shape}", t][1],
    )
    def test_metadata_creates_no_dependency(self, make_cost):
        assert influenced(make_cost) == (False, set())


def mixture(x):
    return MixtureSameFamily(Categorical(probs=torch.ones(2)), Normal(torch.stack([x, x + 1]).float(), 1.0))


class TestDistributions:
    """All tensors that a distribution was computed from are parents of its sample."""

    @pytest.mark.parametrize(
        "distribution",
        [
            lambda x: Bernoulli(probs=0.2 + 0.6 * x),
            lambda x: Bernoulli(logits=x),
            lambda x: Geometric(logits=x),  # computes its probabilities when it is first sampled
            lambda x: Geometric(probs=0.2 + 0.6 * x),
            lambda x: Categorical(logits=torch.stack([x, -x])),
            lambda x: Binomial(3 + x, torch.tensor(0.5)),
            lambda x: Independent(Normal(torch.zeros(2), torch.stack([x + 1, x + 2])), 1),
            lambda x: MixtureSameFamily(Categorical(logits=torch.stack([x, -x])), Normal(torch.zeros(2), 1.0)),
        ],
        ids=lambda distribution: None,
    )
    def test_parents_of_distributions_are_tracked(self, distribution):
        def program(graph):
            x = graph.sample("x", Bernoulli(0.5))
            graph.sample("y", distribution(x))
            graph.sample("z", Normal(0.0, 1.0))
            graph.cost("f", 1.0)

        graph = trace(program)
        assert graph.influences("x") == {"y"}
        assert graph.runs[0].provenance.control_dependencies == set()

    def test_control_flow_of_a_sampler_is_no_control_dependency(self):
        def program(graph):
            x = graph.sample("x", Bernoulli(0.5))
            graph.sample("y", Bernoulli(probs=0.2 + 0.6 * x))
            graph.cost("f", 1.0)

        def sampler(name, distribution):
            return torch.tensor(float(distribution.probs.item() > 0.4))

        assert trace(program, draw=sampler).influences("x") == {"y"}


def by_dlpack(x):
    return 2 * torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(x))


def by_dlpack_before_the_write(x):
    memory = torch.zeros(3)
    alias = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(memory))
    memory[1] = x
    return alias.sum()


class TestUntrackable:
    @pytest.mark.parametrize(
        ("expose", "sentence"),
        [
            (torch.from_dlpack, "__dlpack__ exposes the memory of 'x' where it cannot be tracked"),
            (np.from_dlpack, "__dlpack__ exposes the memory of 'x' where it cannot be tracked"),
            (lambda x: x.data_ptr(), "data_ptr exposes the memory of 'x'"),
            (lambda x: x.untyped_storage(), "untyped_storage exposes the memory of 'x'"),
            (lambda x: HidesItsInput.apply(x.double()), "data_ptr exposes the memory of 'x'"),
            (
                lambda x: (x * torch.ones(1, requires_grad=True)).sum().backward(),
                "backward stores gradients that depend on 'x'",
            ),
            (lambda x: torch.autograd.backward(x * torch.ones((), requires_grad=True)), "backward stores gradients"),
            (pickle.dumps, "untyped_storage exposes the memory of 'x'"),
            (lambda x: x[None].to_sparse(), "a tensor that depends on 'x' has no storage, like all sparse tensors"),
            (
                lambda x: torch.sparse_coo_tensor([[0]], x[None], (3,), check_invariants=True),
                "a tensor that depends on 'x' has no storage",
            ),
            (by_dlpack, "__dlpack__ exposes the memory of 'x'"),
            (by_dlpack_before_the_write, "__dlpack__ exposes the memory of 'x'"),
        ],
        ids=[
            *("torch dlpack", "numpy dlpack", "pointer", "storage", "function", "backward", "autograd", "pickle"),
            *("to sparse", "sparse", "capsule", "earlier capsule"),
        ],
    )
    def test_error_for_untrackable_value_is_one_sentence(self, expose, sentence):
        with pytest.raises(ValueError, match=sentence) as error:
            influenced(lambda x, t: expose(x))
        assert "\n" not in str(error.value)

    def test_unmarked_tensors_may_be_exposed(self):
        def program(graph, theta):
            torch.from_dlpack(theta.detach())
            theta.data_ptr()
            graph.cost("f", graph.sample("x", Bernoulli(logits=theta.sum())))

        assert trace(program, torch.zeros(2)).influences("x") == {"f"}

    def test_tensor_of_no_sample_may_pass_through_dlpack_and_remains_without_gradient(self):
        def scaled(graph, theta, as_parameter):
            with torch.no_grad():
                scale = torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(2 * theta))
            graph.cost("f", scale * graph.sample("x", Bernoulli(logits=scale if as_parameter else theta)))

        theta = torch.tensor(0.3, requires_grad=True)
        assert trace(scaled, theta, False).influences("x") == {"f"}
        with pytest.raises(ValueError, match=r"distribution of sample 'x' was computed under torch\.no_grad"):
            trace(scaled, theta, True)


class HidesItsInput(torch.autograd.Function):
    """Exposes its input as a custom kernel does."""

    @staticmethod
    def forward(ctx, x):
        address = x.data_ptr()
        return torch.full((), float(address))

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class TestMemory:
    def test_reused_memory_has_no_old_marks(self):
        provenance = Provenance()
        for _ in range(200):
            marked = torch.ones(1000)
            provenance.set_names(marked, {"x"})
            assert provenance.names_of(marked) == {"x"}
            del marked
            fresh = [torch.ones(1000) for _ in range(3)]
            assert provenance.names_of(fresh) == set()

    def test_memory_is_freed(self):
        provenance, marked = Provenance(), torch.ones(1000)
        provenance.set_names(marked, {"x"})
        memory = StorageWeakRef(marked.untyped_storage())
        assert not memory.expired()
        del marked
        assert memory.expired()

    def test_freed_memory_is_forgotten(self):
        provenance, kept = Provenance(), torch.ones(2)
        provenance.set_names(kept, {"x"})
        with provenance:
            for _ in range(30_000):
                kept.square()
        assert len(provenance._memory.storages) < 15_000
        assert provenance.names_of(kept) == {"x"}

    def test_empty_tensors_share_no_marks(self):
        def program(graph):
            x = graph.sample("x", Bernoulli(0.5))
            graph.cost("of x", x.expand(0).sum() + (x * torch.ones(0)).sum())
            graph.cost("beside", (2 * torch.ones(0)).sum())

        assert trace(program).influences("x") == {"of x"}

    def test_freed_view_leaves_no_marks(self):
        """An index marks the view, not the indexed memory."""

        def program(graph, theta):
            x = graph.sample("x", Categorical(logits=theta))
            graph.cost("looked up", theta[x])
            graph.cost("beside", theta[0])

        assert trace(program, torch.zeros(3)).influences("x") == {"looked up"}

    def test_runs_do_not_share_marks(self):
        shared = board(2)

        def program(graph):
            graph.cost("before", shared.sum())
            x = graph.sample("x", Bernoulli(0.5))
            shared.add_(x)
            graph.cost("after", shared.sum())

        assert trace(program).influences("x") == {"after"}
        assert trace(program).influences("x") == {"after"}
