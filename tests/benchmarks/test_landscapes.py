"""Many chains at once: against one at a time and against brute force."""

import pytest
import torch

from archgrad import UsageError
from archgrad.benchmarks.benchmark import from_table
from archgrad.benchmarks.landscapes import BEND, fold, landscapes, squash
from archgrad.benchmarks.nk_chain import nk_chain, tables
from archgrad.benchmarks.table import Column, Table
from archgrad.testing import plain_space

SEEDS = [3, 4, 11]


def everything(D, K, runs):
    h = plain_space(*[K] * D).enumerate()
    return h.expand(runs, *h.shape)


@pytest.mark.parametrize(("D", "K"), [(3, 2), (4, 3), (6, 3)])
def test_each_run_has_the_chain_of_its_seed(D, K):
    many = landscapes(D, K, SEEDS)
    h = everything(D, K, 3)
    values = many.value(h)
    for r, seed in enumerate(SEEDS):
        alone = nk_chain(D, K, seed)
        assert torch.allclose(values[r], alone.f(h[r].double()), atol=1e-6)
        assert float(many.optimum[r]) == pytest.approx(alone.optimum, abs=1e-9)


@pytest.mark.parametrize(("D", "K"), [(3, 3), (4, 3), (7, 2)])
def test_optimum_and_mean_by_brute_force(D, K):
    many = landscapes(D, K, SEEDS)
    values = many.value(everything(D, K, 3))
    assert torch.allclose(values.amin(-1), many.optimum)
    assert torch.allclose(values.mean(-1), many.mean, atol=1e-9)
    assert torch.allclose(values.var(-1, correction=0), torch.ones(3).double(), atol=1e-9)


@pytest.mark.parametrize(("D", "K"), [(3, 3), (5, 3)])
def test_the_saturating_variant_is_a_monotone_standardised_squash(D, K):
    many = landscapes(D, K, SEEDS, saturating=True)
    h = everything(D, K, 3)
    plain, seen = many.value(h), many.observe(h, torch.Generator())
    assert torch.equal(plain, landscapes(D, K, SEEDS).value(h))  # judged on the chain's own scale
    assert torch.allclose(seen.mean(-1), torch.zeros(3).double(), atol=1e-9)
    assert torch.allclose(seen.std(-1, correction=0), torch.ones(3).double(), atol=1e-9)
    assert torch.equal(plain.argsort(dim=-1, stable=True), seen.argsort(dim=-1, stable=True))
    assert torch.equal(seen, many.reported["saturated"](h))
    inner = (seen * 1.0 - seen.amin(-1, keepdim=True)) / (seen.amax(-1, keepdim=True) - seen.amin(-1, keepdim=True))
    logs = (BEND * (plain - plain.amin(-1, keepdim=True))).expm1()
    assert torch.allclose(inner, logs / logs.amax(-1, keepdim=True))


def test_it_saturates_where_the_chain_does_not():
    """The best of 20 decisions of 7 is 7.5 deviations off; squashed, 1.25, as in real tables."""
    many = landscapes(20, 7, range(5000, 5010), saturating=True)
    folded = torch.stack([fold(*tables(20, 7, seed)) for seed in range(5000, 5010)])
    best = squash(folded)(many.optimum.unsqueeze(-1))
    assert -9 < float(many.optimum.mean()) < -7
    assert float(best.min()) > -1.4
    assert float(best.max()) < -1.1


@pytest.mark.parametrize("saturating", [False, True])
def test_noise_is_of_the_stated_size_and_from_the_generator(saturating):
    """20,000 draws: the standard deviation of their deviation is .5 percent."""
    many, clean = (landscapes(5, 3, SEEDS, noise=n, saturating=saturating) for n in (0.7, 0.0))
    h = many.space.uniform(6667, torch.Generator().manual_seed(0)).expand(3, -1, -1, -1)
    first, again = (many.observe(h, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    off = first - clean.observe(h, torch.Generator())
    assert abs(float(off.std()) - 0.7) < 0.7 * 0.025
    assert torch.equal(many.value(h), clean.value(h))


def test_columns_of_a_table():
    space = plain_space(3, 2, 4)  # ragged: the place of a row is counted with each decision's own choices
    a = 100 * torch.rand(24, generator=torch.Generator().manual_seed(0)).double()
    columns = (
        Column(name="a", split="valid", unit="%", better="higher", values=a),
        Column(name="b", split="test", unit="%", better="higher", values=a / 5),
    )
    made = from_table(Table("t", space, columns), "a", ["b"])
    h = space.enumerate().expand(2, -1, -1, -1)
    assert torch.equal(made.value(h), (100 - a).expand(2, -1))
    assert torch.equal(made.observe(h, torch.Generator()), made.value(h))
    assert torch.equal(made.reported["b"](h), (a / 5).expand(2, -1))
    assert made.optimum.tolist() == [float((100 - a).min())]
    assert made.mean.tolist() == [float((100 - a).mean())]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"D": 2}, "got D=2 and K=3"),
        ({"K": 1}, "got D=5 and K=1"),
        ({"seeds": []}, "a seed a run"),
        ({"noise": -1.0}, "noise should be"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        landscapes(**({"D": 5, "K": 3, "seeds": [1]} | change))
