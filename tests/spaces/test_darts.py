"""The space of DARTS: published counts, the supernet equal to the networks at its vertices, networks of genotypes."""

import copy

import pytest
import torch
from torch import nn
from torch.export import Dim

from archgrad import UsageError
from archgrad.spaces.darts import darts
from archgrad.spaces.darts_networks import cifar_network, imagenet_network, set_drop_path
from archgrad.spaces.genotype import DARTS_V1, DARTS_V2, EDGES, OPERATIONS, Genotype, architecture_of
from archgrad.spaces.operations import DropPath
from tests.spaces.convolutional import assert_equal_networks


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def random(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    space = darts((3, 8, 8), 10, width=4, cells=3)
    space.model.double()
    space.example = space.example.double()
    return space


# --- published counts -------------------------------------------------------------------------------------------------


def test_the_search_network_has_the_published_parameters():
    assert parameters(darts((3, 32, 32), 10).model) == 1_930_618


@pytest.mark.parametrize(
    ("make", "genotype", "published"),
    [
        (cifar_network, DARTS_V1, 3_169_414),
        (cifar_network, DARTS_V2, 3_349_342),
        (imagenet_network, DARTS_V2, 4_718_752),
    ],
)
def test_networks_of_genotypes_have_the_published_parameters(make, genotype, published):
    network = make(genotype)
    assert parameters(network) == published
    with_head = make(genotype, auxiliary=True)
    assert parameters(with_head) - parameters(with_head.auxiliary) == published


# --- the space --------------------------------------------------------------------------------------------------------


def test_decisions_are_the_edges_of_two_cells_in_the_order_of_genotypes(space):
    names = [f"{kind}.{i}>{j}" for kind in ("normal", "reduce") for i, j in EDGES]
    assert [(d.name, d.options) for d in space.decisions] == [(name, OPERATIONS) for name in names]
    assert (space.D, space.K, space.size) == (28, 8, 8**28)
    assert space.chosen(space.default) == space.default
    assert [n for n, o in zip(names, space.default, strict=True) if o == "sep_conv_3x3"] == [
        f"normal.{i}>{j}" for j in (2, 3, 4, 5) for i in (0, 1)
    ]


def vertices(space):
    """Random ones, what the literature found, and cells of which parts are dead."""
    found = space.decode(space.uniform(4, torch.Generator().manual_seed(1)))
    found += [architecture_of(DARTS_V2), space.default, ("none",) * 28, ("skip_connect",) * 28]
    hollow = list(space.default)
    for name in ("normal.0>3", "normal.1>3", "normal.2>3", "reduce.0>2", "reduce.1>2"):  # nodes that are zero ...
        hollow[[d.name for d in space.decisions].index(name)] = "none"
    for name in ("normal.3>4", "reduce.2>5"):  # ... and are read
        hollow[[d.name for d in space.decisions].index(name)] = "sep_conv_3x3"
    return [*found, tuple(hollow)]


@pytest.mark.parametrize("n", range(9))
def test_a_supernet_at_a_vertex_is_the_built_network(space, n):
    compared = assert_equal_networks(space, vertices(space)[n], random(2, 3, 3, 8, 8))
    assert compared >= (1 if n == 6 else 10)  # of nothing at all only the head's bias is left


def test_images_of_odd_size_fit(space):
    odd = darts((1, 7, 9), 3, width=2, cells=3)
    odd.model.double()
    odd.example = odd.example.double()
    for architecture in odd.decode(odd.uniform(2, torch.Generator().manual_seed(0))):
        assert_equal_networks(odd, architecture, random(1, 2, 1, 7, 9))


def test_a_zero_node_and_what_only_reads_it_are_dropped(space):
    hollow = vertices(space)[-1]
    sizes = space.sizes(hollow)
    # an operation that reads a zero in each cell, of 4, 8 and 16 channels
    separable = lambda c: 2 * (9 * c + c * c)  # noqa: E731
    assert sizes["params_unpruned"] - sizes["params"] == separable(4) + separable(8) + separable(16)


def test_cells_share_their_decisions_and_not_their_weights(space):
    network = space.build(("skip_connect",) * 14 + ("dil_conv_3x3",) * 14, prune=False)
    kinds = [[type(e).__name__ for e in cell.edges] for cell in network.cells]
    assert kinds[0] == ["Identity"] * 14
    assert kinds[1] == kinds[2] == ["Sequential"] * 14
    assert len({id(p) for p in network.parameters()}) == len(list(network.parameters()))


def test_where_the_image_is_halved(space):
    """At a third and two thirds of the depth, by the edges from the two cells before; channels are doubled there."""
    network, shapes = cifar_network(DARTS_V2, width=4, cells=6), []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[1:])))
    network(torch.rand(2, 3, 32, 32))
    assert shapes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_the_supernet_of_a_relaxed_h_is_the_weighted_sum(space):
    """The first cell's second node by hand, and what h's derivative says of none: nothing."""
    supernet = space.supernet()
    h = random(3, 28, 8).softmax(-1).requires_grad_()
    cell, seen = supernet.model.cells[0], []
    for name in ("first", "second"):
        getattr(cell, name).register_forward_hook(lambda module, args, output: seen.append(output))
    outputs = []
    cell.register_forward_hook(lambda module, args, output: outputs.append(output))
    logits = supernet(random(4, 2, 3, 8, 8), h)
    by_hand = sum(
        h[row, k] * option(state)
        for row, state in zip((0, 1), seen, strict=True)
        for k, option in enumerate(cell.edges[row].options)
    )
    assert torch.allclose(outputs[0][:, :4], by_hand, atol=1e-12)
    (grad,) = torch.autograd.grad(logits.square().sum(), h)
    assert grad[:, 0].eq(0).all()
    assert grad[:, 1:].ne(0).all()


def test_the_search_network_normalises_poolings_and_has_no_scales_outside_of_the_stem(space):
    scaled = [n for n, m in space.model.named_modules() if isinstance(m, nn.BatchNorm2d) and m.affine]
    assert scaled == ["stem.1"]
    pool = space.model.cells[0].edges[0].options[OPERATIONS.index("max_pool_3x3")]
    assert [type(m) for m in pool] == [nn.MaxPool2d, nn.BatchNorm2d]


def test_a_supernet_can_be_copied_and_runs_in_another_memory_format(space):
    supernet = space.supernet().float()
    x, h = random(1, 2, 3, 8, 8).float(), random(2, 28, 8).softmax(-1).float()
    want = supernet(x, h)
    wide = copy.deepcopy(supernet).to(memory_format=torch.channels_last)
    assert torch.allclose(wide(x.to(memory_format=torch.channels_last), h), want, atol=1e-4)


def test_keys_see_through_what_is_dead(space):
    """Two operations that read a node of zeros are the same network, two on a live node are not."""
    names = [d.name for d in space.decisions]
    hollow = vertices(space)[-1]
    other, live = list(hollow), list(hollow)
    other[names.index("normal.3>4")] = "dil_conv_5x5"
    live[names.index("normal.2>4")] = "dil_conv_5x5"
    keys = [space.key(tuple(a)) for a in (hollow, other, live)]
    assert keys[0] == keys[1] != keys[2]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"images of shape \(C, H, W\), got \(5,\); use --space mlp"):
        darts((5,), 10)
    with pytest.raises(UsageError, match="at least 3 cells, or all of them reduce, got 2"):
        darts((3, 8, 8), 10, cells=2)
    with pytest.raises(UsageError, match=r"width should be even, .* got 5"):
        darts((3, 8, 8), 10, width=5)
    with pytest.raises(UsageError, match=r"width should be even, .* got 0"):
        cifar_network(DARTS_V2, width=0)
    with pytest.raises(UsageError, match="at least one cell, got 0"):
        imagenet_network(DARTS_V2, cells=0)


# --- networks of genotypes --------------------------------------------------------------------------------------------


def test_a_genotypes_network_is_its_architectures_network(space):
    """The space's own network with the evaluation network's weights in it, once neither scales nor normalises poolings.

    Two ways from a genotype to a network; they agree in which node reads what, and in what is put side by side.
    """
    built = space.build(architecture_of(DARTS_V2), prune=False)
    network = cifar_network(DARTS_V2, width=4, cells=3).double()
    for module in [*built.modules()]:  # poolings without BatchNorm, as in the evaluation network
        for name, child in module.named_children():
            if isinstance(child, nn.Sequential) and type(child[0]) in (nn.MaxPool2d, nn.AvgPool2d):
                setattr(module, name, child[0])
    with torch.no_grad():
        network.stem.load_state_dict(built.stem.state_dict())
        network.head.load_state_dict(built.head.state_dict())
        for cell, plain in zip(network.cells, built.cells, strict=True):
            for part in ("first", "second"):
                getattr(cell, part).load_state_dict(getattr(plain, part).state_dict(), strict=False)
            genotype = DARTS_V2.normal if cell is network.cells[0] else DARTS_V2.reduce
            for n, (_, i) in enumerate(genotype):
                source = plain.edges[EDGES.index((i, n // 2 + 2))]
                target = cell.edges[n][0] if isinstance(cell.edges[n], nn.Sequential) else cell.edges[n]
                assert type(target) is type(source)
                target.load_state_dict(source.state_dict(), strict=False)
    x = random(5, 3, 3, 8, 8)
    assert (network.train()(x) - built.train()(x)).abs().max() <= 1e-10


def test_stems():
    """An image of CIFAR keeps its size, one of ImageNet is an eighth; the cell before the first sees a quarter."""
    cifar, imagenet = cifar_network(DARTS_V2, width=4, cells=3), imagenet_network(DARTS_V2, width=4, cells=3)
    kinds = lambda module: [type(m).__name__ for m in module]  # noqa: E731
    assert kinds(cifar.stem) == ["Conv2d", "BatchNorm2d"]
    assert kinds(imagenet.stem) == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d"]
    assert kinds(imagenet.second) == ["ReLU", "Conv2d", "BatchNorm2d"]
    x = torch.rand(2, 3, 64, 64)
    assert cifar.second(cifar.stem(x)).shape == (2, 12, 64, 64)
    assert imagenet.stem(x).shape == (2, 4, 16, 16)
    assert imagenet.second(imagenet.stem(x)).shape == (2, 4, 8, 8)


def test_only_paths_that_are_no_identity_are_dropped():
    network = cifar_network(DARTS_V2, width=2, cells=4, drop_path=0.3)
    paths = [m for m in network.modules() if isinstance(m, DropPath)]
    # two normal cells with 2 identities of 8, two that reduce with 3, which read a node of the cell itself
    assert len(paths) == 2 * 6 + 2 * 5
    assert {p.probability for p in paths} == {0.3}
    set_drop_path(network, 0.1)
    assert {p.probability for p in paths} == {0.1}


def test_dropped_paths_change_training_only():
    network = cifar_network(DARTS_V2, width=2, cells=3, drop_path=0.5)
    plain = copy.deepcopy(network)
    set_drop_path(plain, 0)
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert not torch.allclose(network(x), plain(x))
    plain.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(x), plain.eval()(x))


def test_drop_path_refuses_what_is_no_probability():
    for p in (1.0, -0.1):
        with pytest.raises(UsageError, match=r"at least 0 and below 1, got"):
            cifar_network(DARTS_V2, drop_path=p)
        with pytest.raises(UsageError, match=r"at least 0 and below 1, got"):
            set_drop_path(cifar_network(DARTS_V2, width=2, cells=3), p)
    with pytest.raises(UsageError, match="Linear should have paths to drop"):
        set_drop_path(nn.Linear(2, 2), 0.1)


@pytest.mark.parametrize(("make", "size"), [(cifar_network, 32), (imagenet_network, 224)])
def test_an_auxiliary_head_reads_the_cell_at_two_thirds(make, size):
    network = make(DARTS_V2, 7, width=2, cells=6, auxiliary=True)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    network.eval()
    logits, second = network.with_auxiliary(x)
    assert logits.shape == second.shape == (2, 7)
    assert torch.equal(logits, network(x))
    seen = []
    network.cells[4].register_forward_hook(lambda module, args, output: seen.append(output))
    network(x)
    assert torch.equal(network.auxiliary(seen[0]), second)
    assert seen[0].shape[-1] == (8 if size == 32 else 7)
    with pytest.raises(UsageError, match="auxiliary=True"):
        make(DARTS_V2, 7, width=2, cells=6).with_auxiliary(x)


def test_other_cells_than_those_of_the_space_have_networks_too():
    """Three nodes, two of them the output, one that reads a node twice."""
    cell = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 2), ("skip_connect", 3)]
    genotype = Genotype([*cell, ("avg_pool_3x3", 0)], [3, 4], [*cell, ("skip_connect", 0)], [4, 2, 3])
    network = cifar_network(genotype, width=4, cells=4, in_channels=1)
    assert [c.channels for c in network.cells] == [8, 24, 48, 32]
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    cell, states = network.cells[0].eval(), (torch.rand(2, 12, 8, 8), torch.rand(2, 12, 8, 8))
    one, other = cell(*states).split(4, 1)
    cell.output = (4, 3)
    assert torch.equal(cell(*states), torch.cat([other, one], 1))  # in the order given


def test_networks_can_be_exported_for_any_batch(space):
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    hollow = space.build(vertices(space)[-1], prune=False).float()
    for network in (cifar_network(DARTS_V2, width=2, cells=3, drop_path=0.2), hollow):
        network.eval()
        exported = torch.export.export(network, (x[:2],), dynamic_shapes=({0: Dim("batch", min=1)},)).module()
        assert torch.allclose(exported(x), network(x), atol=1e-5)
