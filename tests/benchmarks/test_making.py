"""Training for tables: what is measured, at which fidelity, and that company does not matter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from archgrad import UsageError
from archgrad.benchmarks.blocks import in_blocks, joined
from archgrad.benchmarks.convolutional import Family
from archgrad.benchmarks.grouped import Grouped
from archgrad.benchmarks.making import Images, Training, latency, measure, shrunk, tail, train, weight_seed
from archgrad.tasks import load

FAMILY = Family("tiny", ("skip", "avgpool3x3", "conv3x3"), (2, 2), channels=4, residual=False, classes=3)
TRAINING = Training((4, 8), batch=4, lr=1e-2)


def images(n=40):
    generator = torch.Generator().manual_seed(0)

    def split(n):
        y = torch.randint(0, 3, (n,), generator=generator)
        return y[:, None, None, None] + torch.randn(n, 1, 8, 8, generator=generator), y

    return Images(split(n), split(30), split(20))


CHOICES = torch.tensor([[0, 1, 2, 2], [2, 2, 2, 2], [1, 0, 0, 1], [2, 0, 1, 2]])


def test_company_does_not_matter():
    together = train(FAMILY, CHOICES, 5, images(), TRAINING, torch.float64)
    assert sorted(together) == sorted(
        [f"{s}_{m}_{t}" for m in ("accuracy", "loss") for s, t in (("valid", 4), ("valid", 8), ("test", 8))]
    )
    for i in range(4):
        for name, value in train(FAMILY, CHOICES[i : i + 1], 5, images(), TRAINING, torch.float64).items():
            assert torch.allclose(value, together[name][i : i + 1], rtol=0, atol=1e-9), name


def test_a_measurement_on_the_way_is_that_of_a_training_that_ends_there():
    long = train(FAMILY, CHOICES, 5, images(), TRAINING, torch.float64)
    short = train(FAMILY, CHOICES, 5, images(), Training((4,), batch=4, lr=1e-2), torch.float64)
    assert torch.equal(short["valid_loss_4"], long["valid_loss_4"])
    assert not torch.equal(long["valid_loss_4"], long["valid_loss_8"])


def test_another_seed_is_another_training():
    one, two = (train(FAMILY, CHOICES, seed, images(), TRAINING) for seed in (5, 6))
    assert not torch.equal(one["valid_loss_8"], two["valid_loss_8"])
    assert weight_seed([0, 1], 5) == weight_seed((0, 1), 5)
    assert len({weight_seed(c, s) for c in ([0, 1], [1, 0], [0, 10]) for s in (0, 1)}) == 6
    assert all(0 <= weight_seed([k], 0) < 2**63 for k in range(100))


def test_what_is_measured_is_the_mean_of_the_last_quarter_of_the_steps():
    """The loop again, by hand, on one network as an ordinary module."""
    data, row = images(), CHOICES[3]
    networks = Grouped(FAMILY, row[None], [weight_seed(row.tolist(), 5)], torch.float64)
    module = FAMILY.network(row.tolist()).double()
    module.load_state_dict(networks.weights(0))
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    kept = []
    for step in range(8):
        some = order[4 * step : 4 * step + 4]
        optimizer.zero_grad()
        F.cross_entropy(module(data.train[0][some].double()), data.train[1][some]).backward()
        optimizer.step()
        kept.append({name: p.detach().clone() for name, p in module.named_parameters()})
    module.load_state_dict({name: (kept[6][name] + kept[7][name]) / 2 for name in kept[0]})
    found = train(FAMILY, row[None], 5, data, TRAINING, torch.float64)
    with torch.no_grad():
        for part, (x, y) in (("valid", data.valid), ("test", data.test)):
            logits = module(x.double())
            assert float(found[f"{part}_loss_8"]) == pytest.approx(float(F.cross_entropy(logits, y)), abs=1e-9)
            right = float((logits.argmax(-1) == y).double().mean())
            assert float(found[f"{part}_accuracy_8"]) == pytest.approx(100 * right)
    assert [tail(t) for t in (1, 3, 4, 80, 320)] == [1, 1, 1, 20, 80]


def test_a_table_that_was_interrupted_is_the_same_table(tmp_path):
    """Three blocks of real training; a run that was killed after one goes on and ends with equal numbers."""
    data = images()

    def make(i, past):
        del past
        if i == stop:
            raise KeyboardInterrupt
        rows = {name: values.numpy() for name, values in train(FAMILY, CHOICES, i, data, TRAINING).items()}
        return {"choices": CHOICES.numpy(), **rows}

    stop = None
    whole = joined(list(in_blocks(3, make, tmp_path / "whole", "s")))
    stop = 1
    with pytest.raises(KeyboardInterrupt):
        list(in_blocks(3, make, tmp_path / "killed", "s"))
    stop = None
    resumed = joined(list(in_blocks(3, make, tmp_path / "killed", "s")))
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert np.array_equal(whole[name], resumed[name])


def test_measuring_does_not_depend_on_its_batches():
    networks = Grouped(FAMILY, CHOICES, [1, 2, 3, 4], torch.float64)
    x, y = images().valid
    for batch in (7, 30, 50):
        accuracy, loss = measure(networks, networks.theta, x, y, batch)
        again, other = measure(networks, networks.theta, x, y, 1)
        assert torch.equal(accuracy, again)
        assert torch.allclose(loss, other, atol=1e-12)


def test_images_shrink_to_means_and_are_scaled_by_train_alone():
    x = torch.arange(90 * 16, dtype=torch.float32).reshape(90, 1, 4, 4)
    data = load((x.numpy(), (torch.arange(90) % 3).numpy()))
    small = shrunk(data, 2, valid=5, test=7)
    assert [len(part[1]) for part in (small.train, small.valid, small.test)] == [len(data.train), 5, 7]
    assert float(small.train[0].mean()) == pytest.approx(0, abs=1e-5)
    assert float(small.train[0].std()) == pytest.approx(1)
    means = data.train.x[:, 0, :2, :2].mean((1, 2))
    first = small.train[0][:, 0, 0, 0]
    ratio = (means[1:] - means[0]) / (first[1:] - first[0])
    assert torch.allclose(ratio, ratio[:1], rtol=1e-4)
    here, there = small.test[0][:, 0, 0, 0], data.test.x[:7, 0, :2, :2].mean((1, 2))
    assert torch.allclose((there - means[0]) / ratio[0] + first[0], here, atol=1e-4)


def test_without_a_test_split_nothing_is_measured_on_it():
    data = images()
    found = train(FAMILY, CHOICES, 5, Images(data.train, data.valid, (data.test[0][:0], data.test[1][:0])), TRAINING)
    assert sorted(found) == ["valid_accuracy_4", "valid_accuracy_8", "valid_loss_4", "valid_loss_8"]


def test_latency_is_one_positive_number_a_network():
    found = latency(FAMILY, CHOICES, images().valid[0][:2], rounds=3)
    assert found.shape == (4,)
    assert float(found.min()) > 0


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(UsageError, match="32 examples for 8 steps of 4, got 20"):
        train(FAMILY, CHOICES, 5, images(20), TRAINING)
    for wrong in ((), (8, 4), (0, 4), (4, 4)):
        with pytest.raises(UsageError, match="ascending"):
            Training(wrong)
