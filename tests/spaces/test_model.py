"""A user's own module as a space: decisions found, plain networks built, the supernet equal to them at its vertices."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from archgrad import Choice, InputChoice, UsageError, chain, mlp, space_of
from archgrad.spaces.choice import Inputs, Piece

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0)).double()


class Zero(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


class Net(nn.Module):
    """Nested, shared and input choices, a module used twice, a list of the user's own that holds a reference."""

    def __init__(self):
        super().__init__()
        conv = lambda k: nn.Conv2d(3, 3, k, padding=k // 2)  # noqa: E731
        self.first = Choice("first", {"3x3": conv(3), "5x5": nn.Sequential(conv(5), nn.Tanh()), "skip": nn.Identity()})
        inner = Choice("inner", {"tanh": nn.Tanh(), "conv": conv(1)})
        self.outer = Choice("outer", {"plain": nn.Tanh(), "deep": nn.Sequential(conv(3), inner)})
        self.left = Choice("pair", {"a": conv(1), "b": conv(3)}, shared=True)
        self.right = Choice("pair", {"a": conv(1), "b": conv(3)}, shared=True)
        self.wires = InputChoice("wires", ["x", "first", "outer"], choose=2)
        self.twice = conv(1)
        self.again = self.twice
        self.__dict__["reference"] = self.first  # as a user's plain list or dict would hold it
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        a = self.reference(x)
        b = self.outer(a)
        y = self.again(self.twice(self.wires([x, a, b]) + self.left(a) * self.right(b)))
        return self.head(y.mean((2, 3)))


@pytest.fixture
def space():
    torch.manual_seed(0)
    return space_of(Net().double(), example=X[:2])


def test_decisions_are_found_in_order_with_parents_first(space):
    assert [(d.name, d.options, d.when) for d in space.decisions] == [
        ("first", ("3x3", "5x5", "skip"), ()),
        ("outer", ("plain", "deep"), ()),
        ("inner", ("tanh", "conv"), ((1, 1),)),
        ("pair", ("a", "b"), ()),
        ("wires", ("x+first", "x+outer", "first+outer"), ()),
    ]
    assert space.size == 3 * 3 * 2 * 3
    assert space.default == ("3x3", "plain", "tanh", "a", "x+first")


def test_build_leaves_no_piece_and_touches_nothing(space):
    before = copy.deepcopy(space.model.state_dict())
    for architecture in space.decode(space.enumerate()):
        network = space.build(architecture, prune=False)
        assert not any(isinstance(m, Piece) for m in network.modules())
        assert type(network) is Net
    assert all(torch.equal(v, before[k]) for k, v in space.model.state_dict().items())


@pytest.mark.parametrize("chosen_only", [False, True])
def test_a_supernet_at_a_vertex_is_the_built_network(space, chosen_only):
    """Outputs and gradients, in every architecture, in float64."""
    supernet = space.supernet()
    for architecture in space.decode(space.enumerate()):
        network = space.build(architecture, prune=False)
        h = space.encode([architecture])[0].double()
        for row in (h, h.clone().requires_grad_()):
            out = supernet(X, row, chosen_only=chosen_only)
            want = network(X)
            assert torch.allclose(out, want, atol=1e-12)
            weights = dict(network.named_parameters())
            grads = torch.autograd.grad(want.square().sum(), list(weights.values()), allow_unused=True)
            got = torch.autograd.grad(out.square().sum(), list(supernet.parameters()), allow_unused=True)
            nonzero = lambda gs: sorted(float(g.norm()) for g in gs if g is not None and g.abs().sum() > 0)  # noqa: E731
            assert nonzero(got) == pytest.approx(nonzero(grads), abs=1e-10)


def test_the_derivative_in_h_is_exact_and_asks_for_every_option(space):
    supernet = space.supernet()
    generator = torch.Generator().manual_seed(1)
    h = torch.rand(space.D, space.K, generator=generator).double() * space.mask
    assert torch.autograd.gradcheck(lambda h: supernet(X[:1], h), h.clone().requires_grad_(), atol=1e-6)
    vertex = space.encode([space.default])[0].double().requires_grad_()
    (full,) = torch.autograd.grad(supernet(X, vertex).sum(), vertex)
    (single,) = torch.autograd.grad(supernet(X, vertex, chosen_only=True).sum(), vertex)
    on = vertex.detach() > 0
    assert torch.allclose(single[on], full[on])
    assert (single[~on] == 0).all()
    assert (full[~on & space.mask] != 0).any()


def test_options_of_zero_weight_do_not_run(space):
    supernet = space.supernet()
    ran = []
    for module in supernet.modules():
        if isinstance(module, Choice):
            for name, option in zip(module.names, module.options, strict=True):
                option.register_forward_hook(lambda *_, who=(module.name, name): ran.append(who))
    supernet(X, space.encode([("skip", "plain", "tanh", "b", "x+first")])[0])
    assert ran == [("first", "skip"), ("outer", "plain"), ("pair", "b"), ("pair", "b")]


def test_an_undecided_piece_says_what_to_do(space):
    with pytest.raises(RuntimeError, match=r"'first' is undecided: run space.build\(architecture\) or space.supernet"):
        space.model(X)


def test_a_supernet_forgets_its_decision_also_after_an_error(space):
    supernet = space.supernet()
    h = space.encode([space.default])[0].double()
    with pytest.raises(RuntimeError):
        supernet(X[:, :2], h)  # two channels where three are expected
    with pytest.raises(RuntimeError, match="undecided"):
        supernet.model(X)
    assert torch.isfinite(supernet(X, h)).all()


def test_a_second_thread_is_refused_and_the_first_unharmed(space):
    supernet = space.supernet()
    h = space.encode([space.default])[0].double()
    inside, leave, caught = threading.Event(), threading.Event(), []
    want = supernet(X, h)

    def hold(*_):
        inside.set()
        leave.wait(10)

    handle = supernet.model.head.register_forward_pre_hook(hold)
    result = []
    first = threading.Thread(target=lambda: result.append(supernet(X, h)))
    first.start()
    inside.wait(10)
    try:
        supernet(X, h)
    except RuntimeError as error:
        caught.append(str(error))
    leave.set()
    first.join()
    handle.remove()
    assert caught == ["a supernet runs in one thread at a time; give each thread its own copy"]
    assert torch.equal(result[0], want)


def test_a_supernet_can_be_copied_and_pickled(space):
    supernet = space.supernet()
    h = space.encode([space.default])[0].double()
    for other in (copy.deepcopy(supernet), pickle.loads(pickle.dumps(supernet))):
        assert torch.equal(other(X, h), supernet(X, h))


def test_fresh_weights_are_a_function_of_the_seed_alone(space):
    a, b, c = (space.build(space.default, seed=s).state_dict() for s in (1, 1, 2))
    torch.manual_seed(7)
    state = torch.get_rng_state()
    space.build(space.default, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not any(torch.equal(a[k], c[k]) for k in a)
    kept = space.build(space.default).state_dict()
    assert torch.equal(kept["first.weight"], space.model.state_dict()["first.options.0.weight"])
    kept["first.weight"].zero_()
    assert space.model.state_dict()["first.options.0.weight"].abs().sum() > 0  # a copy, not a view


class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3, 1, 1), 5.0))
        self.c = Choice("c", {"a": nn.Identity(), "b": nn.Tanh()})

    def forward(self, x):
        return self.c(x) * self.scale


def test_a_module_that_cannot_be_made_fresh_is_refused_by_name_and_a_factory_is_the_way_out():
    with pytest.raises(UsageError, match=r"'the model' \(Raw\) has none"):
        space_of(Raw()).build(("a",), seed=0)
    network = space_of(Raw).build(("b",), seed=0)
    assert (network.scale == 5).all()


def test_frozen_weights_stay_where_the_rest_is_made_fresh():
    backbone = nn.Linear(3, 3).requires_grad_(False)
    model = nn.Sequential(backbone, Choice("c", {"a": nn.Linear(3, 2), "b": nn.Linear(3, 2, bias=False)}))
    network = space_of(model).build(("a",), seed=4)
    assert torch.equal(network[0].weight, backbone.weight)
    assert not torch.equal(network[1].weight, model[1].options[0].weight)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: nn.Linear(2, 2), "at least one decision"),
        (lambda: nn.Sequential(*(Choice("a", {"x": nn.Identity()}) for _ in range(2))), "stands at '0' and at '1'"),
        (
            lambda: nn.Sequential(
                Choice("a", {"x": nn.Identity()}, shared=True), Choice("a", {"y": nn.Identity()}, shared=True)
            ),
            "equal options",
        ),
        (lambda: Choice("a", {}), "non-empty names"),
        (lambda: Choice("", {"x": nn.Identity()}), "non-empty string"),
        (lambda: Choice("a", {"x": torch.tanh}), "should be an nn.Module"),
        (lambda: InputChoice("a", ["x", "y"], choose=3), "between 1 and the 2 inputs"),
        (lambda: InputChoice("a", ["x", "x"]), "distinct names"),
    ],
)
def test_mistakes_are_named(make, says):
    with pytest.raises(UsageError, match=says):
        space_of(make())


def test_an_architecture_can_be_a_mapping(space):
    named = {"first": "skip", "outer": "deep", "inner": "conv", "pair": "b", "wires": "first+outer"}
    assert space.chosen(named) == ("skip", "deep", "conv", "b", "first+outer")
    with pytest.raises(UsageError, match=r"missing=\['wires'\]"):
        space.chosen({k: v for k, v in named.items() if k != "wires"})


def test_a_model_that_is_itself_a_choice():
    space = space_of(Choice("all", {"a": nn.Linear(2, 3), "b": nn.Identity()}))
    assert isinstance(space.build(("a",)), nn.Linear)


def test_inputs_that_do_not_fit_are_refused(space):
    piece = InputChoice("p", ["x", "y"])
    piece.run = (0,)
    with pytest.raises(UsageError, match="reads 2 tensors"):
        piece([X])
    assert torch.equal(Inputs((0, 1))([X, X]), 2 * X)


# --- pruning, sizes and keys ---------------------------------------------------------------------------------------


class Cell(nn.Module):
    """x -> a -> b, x -> c -> b: with c = none the convolution before it is dead, with b = none all are."""

    def __init__(self, times=False):
        super().__init__()
        conv = lambda: nn.Conv2d(3, 3, 3, padding=1)  # noqa: E731
        zero = Times() if times else Zero()
        self.before = conv()
        self.a = Choice("a", {"conv": conv(), "skip": nn.Identity()})
        self.c = Choice("c", {"conv": conv(), "none": zero})
        self.unused = nn.Linear(5, 5)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head((self.a(x) + self.c(self.before(x).relu())).mean((2, 3)))


class Times(nn.Module):
    """The other way to write none: a gradient that exists and is zero."""

    def forward(self, x):
        return x * 0.0


@pytest.mark.parametrize("times", [False, True])
def test_dead_parts_are_dropped_and_the_outputs_stay(times):
    conv, head = 3 * 3 * 9 + 3, 2 * 3 + 2
    space = space_of(Cell(times).double(), example=X[:2])
    for architecture, parts in [(("conv", "conv"), 3), (("conv", "none"), 1), (("skip", "none"), 0)]:
        whole, pruned = space.build(architecture, prune=False), space.build(architecture)
        assert torch.equal(whole(X), pruned(X))
        assert sum(p.numel() for p in pruned.parameters()) == parts * conv + head
        sizes = space.sizes(architecture)
        assert sizes["params"] == parts * conv + head
        assert sizes["params_unpruned"] == sum(p.numel() for p in whole.parameters())
        assert sizes["macs"] == parts * 81 * 36 + 6  # 3x3x3x3 a pixel, 6x6 pixels


def test_what_is_dead_beside_a_batchnorm_is_dropped_and_its_statistics_stay():
    class Normalised(Cell):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x):
            return self.head(self.norm(self.a(x) + self.c(self.before(x).relu())).mean((2, 3)))

    space = space_of(Normalised().double(), example=X[:2])
    pruned = space.build(("conv", "none"))
    assert {n.split(".")[0] for n, _ in pruned.named_parameters()} == {"a", "norm", "head"}
    assert pruned.norm.running_mean.eq(0).all()
    assert torch.equal(pruned(X), space.build(("conv", "none"), prune=False)(X))


def test_a_frozen_parameter_is_not_dead():
    model = Cell().double()
    model.before.requires_grad_(False)
    network = space_of(model, example=X[:2]).build(("conv", "conv"))
    assert network.before.weight.abs().sum() > 0


def test_a_part_that_only_training_uses_stays():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = Choice("c", {"a": nn.Conv2d(3, 3, 1)})
            self.helper = nn.Conv2d(3, 3, 1)
            self.never = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            y = self.c(x)
            return y + self.helper(x) if self.training else y

    network = space_of(Auxiliary().double(), example=X).build(("a",))
    assert [n for n, _ in network.named_parameters()] == ["c.weight", "c.bias", "helper.weight", "helper.bias"]


def test_keys_know_equal_networks_and_different_ones():
    """Skips contracted, dead parts ignored, settings and sharing kept."""

    def sequence(*options):
        return nn.Sequential(*(Choice(str(i), dict(o)) for i, o in enumerate(options)))

    conv = lambda **k: nn.Conv2d(3, 3, 3, padding=1, **k)  # noqa: E731
    layer = {"conv": conv(), "skip": nn.Identity(), "grouped": conv(groups=3), "tanh": nn.Tanh()}
    space = space_of(sequence(layer, copy.deepcopy(layer)).double(), example=X[:2])
    keys = {a: space.key(a) for a in space.decode(space.enumerate())}
    assert keys["conv", "skip"] == keys["skip", "conv"]
    assert keys["conv", "tanh"] != keys["tanh", "conv"]
    assert len(set(keys.values())) == 4 * 4 - 3  # (conv|grouped|tanh, skip) = (skip, ...)

    cell = space_of(Cell().double(), example=X[:2])
    assert cell.key(("conv", "none")) != cell.key(("skip", "none"))

    class Shared(nn.Module):
        """One convolution read twice, or two of the same shape."""

        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.which = InputChoice("which", ["same", "other"])

        def forward(self, x):
            y = self.one(x)
            return (y.tanh() * self.which([y, self.two(x)]).tanh()).sum((2, 3))

    shared = space_of(Shared().double(), example=X[:2])
    assert shared.key(("same",)) != shared.key(("other",))

    dropout = space_of(sequence({"a": nn.Dropout(0.1), "b": nn.Dropout(0.5)}, {"c": conv()}).double(), example=X[:2])
    assert dropout.key(("a", "c")) != dropout.key(("b", "c"))


def test_terms_of_a_sum_have_no_order():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = Choice("a", {"t": nn.Conv2d(3, 3, 1), "s": nn.Conv2d(3, 3, 3, padding=1)})
            self.b = Choice("b", {"t": nn.Conv2d(3, 3, 1), "s": nn.Conv2d(3, 3, 3, padding=1)})

        def forward(self, x):
            return self.a(x) + self.b(x)

    space = space_of(Sum().double(), example=X[:2])
    assert space.key(("t", "s")) == space.key(("s", "t")) != space.key(("t", "t"))

    class SumOfSums(nn.Module):
        def __init__(self):
            super().__init__()
            self.terms = nn.ModuleList(
                Choice(name, {str(k): nn.Conv2d(3, 3, k, padding=k // 2) for k in (1, 3, 5)}) for name in "abcd"
            )

        def forward(self, x):
            a, b, c, d = (term(x) for term in self.terms)
            return (a + b).tanh() + (c + d).tanh()

    space = space_of(SumOfSums().double(), example=X[:2])
    # three kernels: 6 unordered pairs of them, 21 unordered pairs of those
    assert len({space.key(a) for a in space.decode(space.enumerate())}) == 21


# --- the built-in spaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "shape"), [(chain, (1, 8, 8)), (chain, (3, 32, 32)), (chain, (1, 28, 28)), (mlp, (30,)), (mlp, (1, 8, 8))]
)
def test_built_in_spaces(make, shape):
    space = make(shape, 10)
    if make is chain:
        assert (space.D, space.K, space.size) == (20, 7, 7**20)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)).double()
    space.model.double()
    space.example = space.example.double()
    supernet = space.supernet()
    for architecture in [space.default, *space.decode(space.uniform(3, torch.Generator().manual_seed(1)))]:
        network = space.build(architecture, prune=False).train()
        torch.manual_seed(0)
        want = network(x)
        torch.manual_seed(0)
        assert torch.allclose(supernet(x, space.encode([architecture])[0].double()), want, atol=1e-12)
        assert want.shape == (3, 10)
        assert space.sizes(architecture)["params"] == sum(p.numel() for p in network.parameters())


def test_the_default_of_a_chain_is_the_plain_network():
    """Counted by hand: 3x3 convolutions without bias and BatchNorms at 16 and 32 channels, a 1x1 between, a linear."""
    space = chain((1, 8, 8), 10)
    conv = lambda i, o, k: i * o * k * k + 2 * o  # noqa: E731
    want = conv(1, 16, 3) + 2 * conv(16, 16, 3) + conv(16, 32, 1) + 2 * conv(32, 32, 3) + 330
    assert space.sizes(space.default)["params"] == want
    assert space.sizes(space.default)["macs"] == 64 * (144 + 2 * 2304) + 16 * (512 + 2 * 9216) + 320


def test_moving_a_skip_in_a_chain_changes_nothing():
    space = chain((1, 8, 8), 10)
    moved = list(space.default)
    moved[1], moved[5] = moved[5], moved[1]
    assert space.key(tuple(moved)) == space.key(space.default)


def test_spaces_refuse_shapes_they_cannot_take():
    with pytest.raises(UsageError, match=r"images of shape \(C, H, W\), got \(5,\); use --space mlp"):
        chain((5,), 10)
    with pytest.raises(UsageError, match="at least 4 layers"):
        chain((1, 8, 8), 10, layers=3)
