"""Training from scratch: a function of (architecture, seed, fidelity), of the training split alone."""

import dataclasses
import itertools
import math

import pytest
import torch
from safetensors.torch import load_file

from archgrad import Choice, FromScratch, UsageError, load, mlp, space_of
from archgrad.solvers.from_scratch import Normalise, batches, recalibrate, schedule, scores
from archgrad.tasks import Split


@pytest.fixture(scope="module")
def solver():
    data = load("digits", limit=600)
    return FromScratch(mlp(data.input_shape, 10), data)


def default(solver):
    return solver.space.default


def test_it_learns(solver):
    """The plain MLP on 480 digits: chance is 10%."""
    metrics = solver.measure(default(solver), 0, 10)
    assert metrics["valid_accuracy"] > 0.85
    assert metrics["valid_loss"] < 0.6
    assert metrics["train_loss"] < 0.3
    assert metrics["params"] == 64 * 64 + 64 + 2 * (64 * 64 + 64) + 650


def test_more_epochs_train_longer(solver):
    losses = [solver.measure(default(solver), 0, e)["train_loss"] for e in (1, 3, 9)]
    assert losses[0] > losses[1] > losses[2]


def test_it_is_a_function_of_its_arguments(solver):
    dropout = ("dropout", "norm-relu", *default(solver)[2:])
    a = solver.measure(dropout, 1, 1)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert solver.measure(dropout, 1, 1) == a
    assert torch.equal(torch.get_rng_state(), state)
    assert solver.measure(dropout, 2, 1)["valid_loss"] != a["valid_loss"]


def test_neither_validation_nor_test_examples_reach_the_weights(solver):
    """Both splits replaced by nonsense: equal weights; and with the test split all NaN every metric is finite."""
    data = solver.data

    def blank(split):
        return Split(torch.full_like(split.x, float("nan")), split.y)

    blind = FromScratch(solver.space, dataclasses.replace(data, valid=blank(data.valid), test=blank(data.test)))
    want, got = (s.solve(default(solver), 0, 2)[0].state_dict() for s in (solver, blind))
    assert all(torch.equal(want[k], got[k]) for k in want)
    assert math.isnan(blind.measure(default(solver), 0, 1)["valid_loss"])
    untested = FromScratch(solver.space, dataclasses.replace(data, test=blind.data.test))
    assert untested.measure(default(solver), 0, 1) == solver.measure(default(solver), 0, 1)


def test_saved_weights_are_those_that_were_measured(solver, tmp_path):
    metrics = solver.measure(default(solver), 5, 1, str(tmp_path / "deep" / "w.safetensors"))
    network = solver.fresh(default(solver), 99)
    network.load_state_dict(load_file(tmp_path / "deep" / "w.safetensors"))
    again = scores(network.eval(), solver.data.valid, "valid")
    assert again["valid_loss"] == pytest.approx(metrics["valid_loss"], rel=1e-6)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["w.safetensors"]


def test_scores_by_hand():
    split = Split(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
    network = torch.nn.Linear(2, 2)
    with torch.no_grad():
        network.bias.copy_(torch.tensor([0.0, math.log(3.0)]))  # probabilities 1/4, 3/4
    for chunk in (1, 2, 512):
        found = scores(network, split, "test", chunk)
        assert found["test_accuracy"] == pytest.approx(2 / 3)
        assert found["test_loss"] == pytest.approx((math.log(4) + 2 * math.log(4 / 3)) / 3, rel=1e-5)


def test_batches_are_permutations_and_repeat_with_the_seed():
    split = Split(torch.arange(10).reshape(10, 1), torch.arange(10))
    stream = batches(split, 5, 3)
    epochs = [torch.cat([next(stream)[1] for _ in range(2)]) for _ in range(3)]
    assert all(sorted(e.tolist()) == list(range(10)) for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    again = batches(split, 5, 3)
    assert torch.equal(torch.cat([next(again)[1] for _ in range(2)]), epochs[0])
    x, y = next(batches(split, 5, 1))
    assert torch.equal(x[:, 0], y.float())


def test_the_schedule_warms_up_and_anneals():
    rates = [schedule(t, 100) for t in range(100)]
    assert rates[0] == 0.1
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[-1] < 0.01
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert schedule(0, 1) == 1


def test_recalibration_averages_the_batches_under_the_final_weights():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)) * 4 + 7
    norm = torch.nn.BatchNorm1d(3)
    recalibrate(norm, Split(x, torch.zeros(64, dtype=torch.long)), 32, 0, torch.contiguous_format)
    assert torch.allclose(norm.running_mean, x.mean(0), atol=1e-5)
    assert norm.momentum == 0.1


def test_a_trained_network_has_the_statistics_of_its_final_weights(solver):
    """Mean and variance of a BatchNorm's inputs over the training split, which running averages lag behind."""
    network, _ = solver.solve(("norm-relu", *default(solver)[1:]), 0, 2)
    norm = next(m for m in network.modules() if isinstance(m, torch.nn.BatchNorm1d))
    seen = []
    norm.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    network(solver.data.train.x)
    assert torch.allclose(norm.running_mean, seen[0].mean(0), atol=0.05)
    assert torch.allclose(norm.running_var, seen[0].var(0), rtol=0.15)


def test_normalisation_is_inside_the_network(solver):
    network = solver.fresh(default(solver), 0)
    x = solver.data.train.x
    inner = network[0](x)
    assert abs(float(inner.mean())) < 1e-3
    assert float(inner.std()) == pytest.approx(1, abs=1e-2)
    assert Normalise((10.0, 20.0), (2.0, 5.0), 3)(
        torch.full((1, 2, 1, 1), 30, dtype=torch.uint8)
    ).flatten().tolist() == [10, 2]


def test_a_loss_that_explodes_is_an_error_that_says_when():
    class Explode(torch.nn.Module):
        def forward(self, x):
            return x * float("inf")

    data = load("digits", limit=600)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 10), Choice("c", {"fine": torch.nn.Identity(), "explode": Explode()})
    )
    solver = FromScratch(space_of(model), data)
    with pytest.raises(ArithmeticError, match="training loss became"):
        solver.solve(("explode",), 0, 5)
    with pytest.raises(UsageError, match="at least 2"):
        FromScratch(solver.space, data, batch_size=1)


def test_tied_weights_and_views_train_and_are_kept(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
            self.a, self.b = torch.nn.Linear(256, 256), torch.nn.Linear(256, 256)
            self.b.weight = self.a.weight
            self.c = Choice("c", {"relu": torch.nn.ReLU(), "tanh": torch.nn.Tanh()})
            self.head = torch.nn.Linear(256, 10)

        def forward(self, x):
            y = self.c(self.conv(x)).view(x.shape[0], -1)
            return self.head(self.b(self.a(y)))

    solver = FromScratch(space_of(Tied()), load("digits", limit=600))
    solver.space.example = solver.data.train.x[:2].float()
    assert math.isfinite(solver.measure(("relu",), 0, 1, str(tmp_path / "w.safetensors"))["valid_loss"])
    weights = load_file(tmp_path / "w.safetensors")
    assert torch.equal(weights["1.a.weight"], weights["1.b.weight"])
