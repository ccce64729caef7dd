"""Networks of the cells of NAS-Bench-201: published counts, the same space as the table's, supernet and vertices."""

import csv
import gzip
from pathlib import Path

import pytest
import torch
from torch import nn

from archgrad import UsageError
from archgrad.searchers.frugal import everything
from archgrad.spaces.nasbench201 import EDGES, OPERATIONS, cell_space
from archgrad.spaces.nasbench201_network import nasbench201_network
from archgrad.spaces.plain import count
from tests.spaces.convolutional import assert_equal_networks

DATA = Path(__file__).parents[3] / "shared" / "data" / "nasbench201_cifar10.csv.gz"
CELLS = cell_space()


def cell(digits):
    return tuple(OPERATIONS[int(d)] for d in digits)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def space():
    torch.manual_seed(0)
    space = nasbench201_network((3, 8, 8), 10, width=4, cells=1)
    space.model.double()
    space.example = space.example.double()
    return space


@pytest.fixture(scope="module")
def whole():
    return nasbench201_network((3, 32, 32), 10)


@pytest.fixture(scope="module")
def rows():
    if not DATA.exists():
        pytest.skip(f"needs {DATA}")
    with gzip.open(DATA, "rt") as file:
        return list(csv.DictReader(file))


# --- published -------------------------------------------------------------------------------------------------------


def test_networks_have_the_published_parameters(whole, rows):
    """Twelve networks as they are, and all 15,625 by what each operation adds."""
    for row in rows[:: len(rows) // 12][:12]:
        assert parameters(whole.build(cell(row["ops"]), prune=False)) == int(row["params_cifar10"])
    nothing = parameters(whole.build(cell("000000"), prune=False))
    adds = {str(k): parameters(whole.build(cell(f"{k}00000"), prune=False)) - nothing for k in range(5)}
    assert len(rows) == 15_625
    for row in rows:
        assert nothing + sum(adds[digit] for digit in row["ops"]) == int(row["params_cifar10"])


def operations(network, x):
    """Multiply-accumulates, and, as the benchmark counts, 2 an element for BatchNorm, 1 for ReLU, 9 for 3x3 pooling."""
    seen = []
    price = {nn.BatchNorm2d: 2, nn.ReLU: 1}

    def record(module, args, output):
        each = module.kernel_size**2 if isinstance(module, nn.AvgPool2d) else price.get(type(module), 0)
        seen.append(each * output[0].numel())

    hooks = [m.register_forward_hook(record) for m in network.modules()]
    macs = count(network, x)["macs"]
    for hook in hooks:
        hook.remove()
    return macs + sum(seen)


def test_networks_have_the_published_operations(whole, rows):
    """Sizes of images, which parameters do not tell. Within a thousandth: the global average is left out."""
    for row in rows[:: len(rows) // 8][:8]:
        found = operations(whole.build(cell(row["ops"]), prune=False), torch.rand(1, 3, 32, 32)) / 1e6
        assert found == pytest.approx(float(row["mflops_cifar10"]), rel=1e-3), row["ops"]


# --- one space, with and without networks ----------------------------------------------------------------------------


def test_architectures_are_those_of_the_table(space):
    assert space.decisions == CELLS.decisions
    h = space.uniform(50, torch.Generator().manual_seed(0))
    assert torch.equal(space.index(h), CELLS.index(h))
    assert torch.equal(space.features(h), CELLS.features(h))
    assert torch.equal(space.classes, CELLS.classes)
    for architecture in CELLS.decode(h):
        assert space.key(architecture) == CELLS.key(architecture)
        assert space.cell.parse(space.cell.text(architecture)) == architecture
    assert len(everything(space)) == 5425
    with pytest.raises(UsageError, match="options"):
        space.key(("conv",) * 6)


def test_the_key_agrees_with_the_networks(space):
    """Of the same key are networks that are equal, skips and dead edges apart; 'unpruned' they differ."""
    one, other = cell("300030"), cell("302030")
    assert space.key(one) == space.key(other)
    shape = {k: v for k, v in space.sizes(one).items() if not k.endswith("_unpruned")}
    assert shape.items() <= space.sizes(other).items()


def test_the_default_is_a_residual_block(space):
    assert space.cell.text(space.default) == "|nor_conv_3x3~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"


# --- the supernet ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_a_supernet_at_a_vertex_is_the_built_network(affine):
    torch.manual_seed(0)
    space = nasbench201_network((3, 8, 8), 10, width=4, cells=1, affine=affine)
    space.model.double()
    space.example = space.example.double()
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    random = space.decode(space.uniform(6, torch.Generator().manual_seed(1)))
    for architecture in [*random, cell("000000"), cell("302000"), cell("330003"), space.default]:
        compared = assert_equal_networks(space, architecture, x)
        assert compared >= (1 if space.key(architecture) == "0" else 10)  # the head's bias, where nothing arrives


def test_a_single_path_has_the_same_outputs_and_gradients(space):
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_equal_networks(space, cell("321431"), x, chosen_only=True)


def test_nodes_sum_what_the_edges_say(space):
    """The cell's output by hand, for a relaxed h, with edges found by their names."""
    supernet = space.supernet()
    generator = torch.Generator().manual_seed(2)
    h = torch.rand(6, 5, generator=generator, dtype=torch.float64).softmax(-1)
    inside = next(m for m in supernet.model.modules() if type(m).__name__ == "Cell")
    seen = []
    inside.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    supernet(torch.rand(3, 3, 8, 8, generator=generator, dtype=torch.float64), h)
    ((x, output),) = seen
    nodes = [x]
    for j in (1, 2, 3):
        total = torch.zeros_like(x)
        for i in range(j):
            row = EDGES.index(f"{i}>{j}")
            edge = next(e for e in inside.edges if e.name == f"{i}>{j}")
            for k, option in enumerate(edge.options):
                total = total + h[row, k] * option(nodes[i])
        nodes.append(total)
    assert torch.allclose(nodes[3], output, atol=1e-12)


def test_pooling_does_not_count_the_border_and_skipping_is_the_identity(space):
    inside = next(m for m in space.model.modules() if type(m).__name__ == "Cell")
    options = dict(zip(OPERATIONS, inside.edges[0].options, strict=True))
    ones = torch.ones(2, 4, 5, 5)
    assert torch.allclose(options["avg_pool_3x3"](ones), ones)
    assert options["skip_connect"](ones) is ones


def test_the_image_is_halved_twice_and_channels_are_doubled(space):
    shapes = []
    network = nasbench201_network((1, 9, 10), 3, width=2, cells=2).build(cell("333333"), prune=False)
    for module in network.modules():
        if type(module).__name__ == "Cell":
            module.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape[1:])))
    assert network(torch.rand(2, 1, 9, 10)).shape == (2, 3)
    assert shapes == [(2, 9, 10)] * 2 + [(4, 5, 5)] * 2 + [(8, 3, 3)] * 2


def test_affine_is_about_the_cells_alone(space):
    plain = nasbench201_network((3, 8, 8), 10, width=4, cells=2, affine=False).model
    scaled = {n: m.affine for n, m in plain.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert {n for n, affine in scaled.items() if not affine} == {n for n in scaled if ".edges." in n}


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match=r"images of shape \(C, H, W\), got \(5,\); use --space mlp"):
        nasbench201_network((5,), 10)
    with pytest.raises(UsageError, match="got width=16 and cells=0"):
        nasbench201_network((3, 8, 8), 10, cells=0)
