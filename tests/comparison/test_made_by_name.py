"""made_small and made_large by name: no file, the usual columns, and the best value that is known."""

import pytest
import torch

from archgrad import UsageError, made_large, made_small
from archgrad.api import compare
from archgrad.benchmarks.made import LARGE
from archgrad.comparison.measuring import measure
from archgrad.comparison.problems import benchmark_named
from archgrad.policies import Factorised
from archgrad.recipes import local_search
from archgrad.searchers.each import Each


def test_the_small_one_is_searched_on_one_seed_and_reported_on_test():
    benchmark, table = benchmark_named("made_small", 2), made_small()
    h = table.space.enumerate()
    losses = table.loss("valid_accuracy_320_seed2")
    assert torch.equal(benchmark.value(h), losses)
    assert torch.equal(benchmark.observe(h, torch.Generator()), losses)
    assert (float(benchmark.optimum), float(benchmark.mean)) == (float(losses.min()), float(losses.mean()))
    assert list(benchmark.reported) == ["test_accuracy_320"]
    assert torch.equal(benchmark.reported["test_accuracy_320"](h), table.column("test_accuracy_320").values)


def test_other_columns_of_the_small_one_and_noise():
    benchmark = benchmark_named("made_small", 2, search="valid_loss_80_seed3", report=["params", "macs"], noise=0.5)
    table = made_small()
    h = table.space.enumerate()
    losses = table.loss("valid_loss_80_seed3")
    assert torch.equal(benchmark.value(h), losses)
    assert list(benchmark.reported) == ["params", "macs"]
    noise = benchmark.observe(h, torch.Generator().manual_seed(0)) - losses
    assert float(noise.std()) == pytest.approx(0.5, rel=0.1)  # 2,187 values: 6.6 standard errors


def test_the_large_one_is_the_model():
    benchmark, problem = benchmark_named("made_large", 3, noise=1.9), made_large()
    draws = torch.Generator().manual_seed(0)
    h = Factorised(LARGE.space).sample(500, draws).expand(3, -1, -1, -1)
    assert torch.equal(benchmark.value(h), problem.f(h))
    noise = benchmark.observe(h, draws) - benchmark.value(h)
    assert float(noise.std()) == pytest.approx(1.9, rel=0.1)  # 1,500 values: 5.5 standard errors
    assert not torch.equal(noise[0], noise[1])
    assert not benchmark.reported
    uniform = problem.expectation(Factorised(LARGE.space).double())
    assert float(benchmark.mean) == pytest.approx(float(uniform.detach()))


def test_no_long_local_search_goes_below_the_best_known_value():
    """It is reached as well: a value that is far too low would pass the first half."""
    benchmark = benchmark_named("made_large", 1)
    course = measure(benchmark, Each([local_search(LARGE.space, 11, near_default=None)]), 1, 20_000, 11)
    best = float(benchmark.optimum)
    assert float(course.values.min()) == pytest.approx(best, abs=1e-9)


def test_the_best_known_value_is_the_same_every_time():
    first, second = (benchmark_named("made_large", 1, seed=seed) for seed in (1, 2))
    assert torch.equal(first.optimum, second.optimum)
    assert len(first.optimum) == len(first.mean) == 1


def test_both_run_from_python():
    for name in ("made_small", "made_large"):
        done = compare(name, ["random_search", "local_search"], runs=2, budget=30, seed=0)
        assert done.benchmark == name
        assert all(q > 0 for row in done.rows for q in row.regret[30])


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("made_small", {"table": "t.csv"}, "made_small comes with archgrad, got --table t.csv; leave it out"),
        ("made_small", {"search": "valid_accuracy_320_seed4"}, "did you mean"),
        ("made_small", {"report": ["test"]}, "a column should be one of"),
        ("made_large", {"table": "t.csv"}, "table, search and report are for tables, made_large has none"),
        ("made_large", {"search": "valid_accuracy"}, "made_large has none"),
        ("made_large", {"report": ["valid_loss"]}, "made_large has none"),
        ("made_large", {"noise": -1.0}, "noise should be a standard deviation"),
        (
            "nasbench201",
            {"table": "t.csv", "search": "latency"},
            "taken for accuracies in %, .* got latency; make a table",
        ),
        (
            "nasbench201",
            {"table": "t.csv", "report": ["eval_time"]},
            "got eval_time; make a table with archgrad benchmark import",
        ),
        ("made_lrage", {}, "did you mean 'made_large'"),
    ],
)
def test_what_does_not_belong_is_refused(name, more, message):
    with pytest.raises(UsageError, match=message):
        benchmark_named(name, 2, **more)
