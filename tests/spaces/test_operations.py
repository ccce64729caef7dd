"""The pieces of cells: which pixels they read, what they give, and paths that are dropped."""

import pytest
import torch
from torch import nn

from archgrad import UsageError
from archgrad.spaces.darts_cells import operation
from archgrad.spaces.genotype import OPERATIONS
from archgrad.spaces.operations import DropPath, Edge, FactorizedReduce, Zero, nothing, relu_conv_norm, summed


def reach(module, size=15):
    """Which pixels the output's middle one depends on, as offsets along an axis from the one it lies on."""
    for p in module.parameters():
        nn.init.ones_(p)
    module.eval()  # BatchNorm then looks at no other pixel
    x = torch.rand(1, 2, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = module(x)
    middle = y.shape[-1] // 2
    (grad,) = torch.autograd.grad(y[0, :, middle, middle].sum(), x)
    rows, columns = (grad != 0).any(1)[0].any(1), (grad != 0).any(1)[0].any(0)
    assert torch.equal(rows, columns)
    return [i - middle * (size // y.shape[-1]) for i in rows.nonzero().flatten().tolist()]


@pytest.mark.parametrize(
    ("name", "offsets"),
    [
        ("skip_connect", [0]),
        ("avg_pool_3x3", [-1, 0, 1]),
        ("sep_conv_3x3", [-2, -1, 0, 1, 2]),
        ("sep_conv_5x5", [-4, -3, -2, -1, 0, 1, 2, 3, 4]),
        ("dil_conv_3x3", [-2, 0, 2]),
        ("dil_conv_5x5", [-4, -2, 0, 2, 4]),
    ],
)
def test_what_an_operation_reads(name, offsets):
    """Parameter counts would not notice a wrong dilation or padding."""
    assert reach(operation(name, 2, 1, affine=True)) == offsets


def test_max_pooling_reads_its_nine_pixels():
    x = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    y = operation("max_pool_3x3", 1, 1, affine=True)(-x)  # all below zero: padding must not win
    assert y[0, 0, 2, 2] == -x[0, 0, 1:4, 1:4].min()
    assert y[0, 0, 0, 0] == -x[0, 0, :2, :2].min()


def test_average_pooling_does_not_count_the_border():
    x = torch.ones(1, 2, 5, 5)
    for stride in (1, 2):
        y = operation("avg_pool_3x3", 2, stride, affine=True)(x)
        assert torch.allclose(y, torch.ones_like(y))


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (5, 8)])
@pytest.mark.parametrize("stride", [1, 2])
def test_all_operations_give_the_same_shape(size, stride):
    x = torch.rand(2, 4, *size)
    want = (2, 4, *(-(-s // stride) for s in size))
    for name in OPERATIONS:
        assert operation(name, 4, stride, affine=False)(x).shape == want, name
    assert relu_conv_norm(4, 6, 3, stride=stride)(x).shape == (2, 6, *want[2:])


def test_an_unknown_operation_is_refused():
    with pytest.raises(UsageError, match="got 'conv_3x3'"):
        operation("conv_3x3", 4, 1, affine=True)


def test_nothing_is_a_zero_of_one_number_and_is_not_added():
    x = torch.rand(3, 2, 5, 4, requires_grad=True)
    zero = Zero(2)(x)
    assert zero.shape == (3, 2, 3, 2)
    assert zero.eq(0).all()
    assert not zero.requires_grad
    assert zero.untyped_storage().nbytes() == x.element_size()
    assert summed([nn.Identity(), Zero(), nn.Tanh()], [x, x, x]).equal(x + x.tanh())
    assert summed([Zero(), nn.Identity()], [x, x]) is x
    assert summed([Zero(2), Zero(2)], [x, x]).equal(torch.zeros(3, 2, 3, 2))


def test_a_choice_does_not_compute_nothing_beside_others():
    """And what is added keeps its layout in memory; alone it is a zero, with a derivative if h asks for one."""
    edge = Edge("e", {"none": Zero(2), "pool": nn.AvgPool2d(2, 2), "other": nn.MaxPool2d(2, 2)})
    ran = []
    edge.options[0].register_forward_hook(lambda *_: ran.append("none"))
    x = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    edge.weights, edge.run = torch.tensor([0.5, 0.2, 0.3], requires_grad=True), (0, 1, 2)
    y = edge(x)
    assert torch.allclose(y, 0.2 * edge.options[1](x) + 0.3 * edge.options[2](x))
    assert y.is_contiguous(memory_format=torch.channels_last)
    (grad,) = torch.autograd.grad(y.sum(), edge.weights)
    assert grad[0] == 0
    assert grad[1:].ne(0).all()
    assert not nothing(edge)
    edge.run = (0,)
    (grad,) = torch.autograd.grad(edge(x).sum(), edge.weights)
    assert grad.eq(0).all()
    assert ran == ["none"]
    edge.weights = None
    assert nothing(edge)
    assert edge(x).equal(torch.zeros(2, 3, 2, 2))
    assert summed([edge, nn.MaxPool2d(2, 2)], [x, x]).equal(edge.options[2](x))
    assert ran == ["none"] * 2
    edge.run = (1,)
    assert not nothing(edge)
    assert edge(x).equal(edge.options[1](x))


@pytest.mark.parametrize("size", [6, 7])
def test_a_factorized_reduction_reads_every_other_pixel_and_then_the_others(size):
    """Half of the channels see pixels 0, 2, 4, the other half 1, 3, 5 and, of an odd image, a zero behind the last."""
    module = FactorizedReduce(1, 2).eval()
    for conv in (module.even, module.odd):
        nn.init.ones_(conv.weight)
    x = torch.arange(1.0, size * size + 1).reshape(1, 1, size, size)
    y = module(x) * (1 + module.norm.eps) ** 0.5
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    half = -(-size // 2)
    assert torch.allclose(y[:, 0], x[:, 0, ::2, ::2])
    assert torch.allclose(y[:, 1], padded[:, 0, 1::2, 1::2][:, :half, :half])
    assert module(-x).eq(0).all()  # behind a ReLU


def test_dropped_paths_are_made_up_for_and_whole():
    """A mean of 20,000 draws within 4.9 standard deviations, false alarm 1e-6; without the scaling it is off by 56."""
    p, n = 0.2, 20_000
    torch.manual_seed(0)
    y = DropPath(p)(torch.ones(n, 2, 3, 3))
    one = y[:, 0, 0, 0]
    assert y.eq(one[:, None, None, None]).all()  # of an example all or nothing
    assert set(one.tolist()) == {0.0, one.max().item()}
    assert one.max() == pytest.approx(1 / (1 - p))
    assert abs(one.mean() - 1) < 4.9 * (p / (1 - p) / n) ** 0.5


def test_paths_are_dropped_in_training_only():
    x = torch.rand(50, 2, 3, 3)
    assert DropPath(0.9).eval()(x) is x
    state = torch.get_rng_state()
    assert DropPath(0.0)(x) is x
    assert torch.get_rng_state().equal(state)
    assert not DropPath(0.5)(x).equal(x)
