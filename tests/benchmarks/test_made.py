"""What is shipped: complete, finite, as noisy as is said, and about the networks it says it is about."""

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import spearmanr

from archgrad import Autoregressive, Factorised, UsageError
from archgrad.benchmarks.made import (
    DATA,
    GROUPS,
    LARGE,
    LARGE_SEEDS,
    SMALL,
    SMALL_SEEDS,
    SMALL_TRAINING,
    made_large,
    made_rows,
    made_small,
)
from archgrad.spaces.plain import count
from tests.policies.test_policies import scrambled

FIRST, LAST = SMALL_TRAINING.fidelities


@pytest.fixture(scope="module")
def table():
    return made_small()


@pytest.fixture(scope="module")
def rows():
    return made_rows()


def values(table, name):
    return table.column(name).values


def test_the_small_table_has_every_column_of_every_network(table):
    assert table.space.decisions == SMALL.space.decisions
    assert table.space.size == 2187
    measured = [
        f"{split}_{metric}_{steps}_seed{seed}"
        for split, steps in (("valid", FIRST), ("valid", LAST), ("test", LAST))
        for metric in ("accuracy", "loss")
        for seed in SMALL_SEEDS
    ]
    means = [f"{split}_accuracy_{LAST}" for split in ("valid", "test")]
    assert sorted(c.name for c in table.columns) == sorted([*measured, *means, "params", "macs", "latency_ms"])
    for column in table.columns:
        assert bool(torch.isfinite(column.values).all())
        assert column.split == (
            "cost" if "_" not in column.name or "latency" in column.name else column.name[:5].strip("_")
        )
    for name in measured:
        column = table.column(name)
        assert column.seeds == 1
        if "accuracy" in name:
            # so many of 3,000 images, to the four decimals that are kept
            right = column.values * 30
            assert bool(((right - right.round()).abs() < 2e-3).all())
            assert 0 <= float(column.values.min()) <= float(column.values.max()) <= 100
        else:
            assert float(column.values.min()) > 0
    for name in means:
        mean = sum(values(table, f"{name}_seed{seed}") for seed in SMALL_SEEDS) / 2
        assert torch.allclose(values(table, name), mean, atol=1e-4)
        assert table.column(name).seeds == 2


def test_two_seeds_rank_the_small_networks_alike(table):
    """At the full fidelity; also, validation knows test, and a quarter of the steps knows something of all."""
    for name in (f"valid_accuracy_{LAST}", f"valid_loss_{LAST}", f"test_accuracy_{LAST}"):
        one, two = (values(table, f"{name}_seed{seed}") for seed in SMALL_SEEDS)
        assert not torch.equal(one, two)
        assert spearmanr(one, two).statistic >= 0.6, name
    mean = values(table, f"valid_accuracy_{LAST}")
    assert spearmanr(mean, values(table, f"test_accuracy_{LAST}")).statistic > 0.9
    assert spearmanr(mean, values(table, f"valid_accuracy_{FIRST}_seed{SMALL_SEEDS[0]}")).statistic > 0.4
    assert float((mean - values(table, f"valid_accuracy_{FIRST}_seed{SMALL_SEEDS[0]}")).mean()) > 5


def test_costs_are_those_of_the_built_networks(table):
    choices = SMALL.space.enumerate().argmax(-1)
    for i in (0, 1, 2, 800, 1500, 2186):
        counted = count(SMALL.network(choices[i].tolist()), torch.randn(1, 1, 14, 14))
        assert counted == {"params": float(values(table, "params")[i]), "macs": float(values(table, "macs")[i])}
    latency = values(table, "latency_ms")
    assert float(latency.min()) > 0
    skip = SMALL.options.index("skip")
    assert float(spearmanr(latency, (choices != skip).sum(-1)).statistic) > 0.8, "what is skipped takes no time"


def test_the_large_rows_are_complete_and_their_groups_what_is_said(rows):
    n = len(rows["choices"])
    assert n >= 2000
    assert rows["choices"].dtype == torch.uint8
    assert rows["choices"].shape == (n, LARGE.D)
    assert int(rows["choices"].max()) == LARGE.space.K - 1
    for name in ("valid_accuracy", "valid_loss"):
        assert bool(torch.isfinite(rows[name]).all())
    choices = [tuple(row) for row in rows["choices"].tolist()]
    group = rows["group"].tolist()
    by = {name: [c for c, g in zip(choices, group, strict=True) if g == i] for i, name in enumerate(GROUPS)}
    assert len({*by["uniform"], *by["children"]}) == len(by["uniform"]) + len(by["children"]) >= 2000
    assert set(by["again"]) <= {*by["uniform"], *by["children"]}
    assert not {*by["best"], *by["best again"]} & {*by["uniform"], *by["children"]}
    assert bool(((rows["seed"] == LARGE_SEEDS[1]) == (rows["group"] >= 2)).all())
    accuracy = rows["valid_accuracy"]
    assert float(accuracy[rows["group"] == 1].mean()) > float(accuracy[rows["group"] == 0].mean())


def test_the_shipped_model_is_the_fit_to_the_shipped_rows(rows):
    """Ridge regression, without fitting again: the residuals, summed by choice, are its weights times one strength."""
    problem = made_large()
    past = rows["group"] < GROUPS.index("best again")
    h = torch.nn.functional.one_hot(rows["choices"].long(), LARGE.space.K).double()
    f = (100 - rows["valid_accuracy"]).double()
    weights = load_file(DATA / "large_model.safetensors")["table"]
    with torch.no_grad():
        residual = f - problem.f(h)
    strength = torch.einsum("n,ndk->dk", residual[past], h[past]) / weights
    assert float(strength.min()) > 0
    assert torch.allclose(strength, strength.median().expand_as(strength), rtol=1e-3)
    assert float(residual[past].square().mean()) < float(f[past].var())


def test_the_model_is_a_known_problem():
    problem = made_large()
    policy = scrambled(Factorised(problem.space).double())
    h = policy.sample(20_000, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        drawn = problem.f(h)
        exact = float(problem.expectation(policy))
    # off by more than 4.4 standard errors with probability 1e-5
    assert abs(float(drawn.mean()) - exact) < 4.4 * float(drawn.std()) / 20_000**0.5
    assert torch.isfinite(problem.gradient(policy)[0]).all()
    noisy = made_large(noise=2.0, seed=1)
    with torch.no_grad():
        assert float((noisy.f(h) - drawn).std()) == pytest.approx(2, rel=0.05)
    with pytest.raises(UsageError, match="got -1"):
        made_large(noise=-1)
    with pytest.raises(UsageError, match="independent decisions"):
        problem.expectation(Autoregressive(problem.space, hidden=4))
