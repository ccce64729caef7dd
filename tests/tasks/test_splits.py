"""Splits are disjoint, exhaustive, stratified and seeded: claims about indices, for any labels."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archgrad.tasks import load
from archgrad.tasks.splits import cut, thin


@st.composite
def labels(draw, smallest=3):
    """Shuffled labels of 2 to 8 classes of very different sizes."""
    counts = draw(st.lists(st.integers(smallest, 60), min_size=2, max_size=8))
    y = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(draw(st.integers(0, 9))).permutation(y)


fractions = st.lists(st.floats(0.05, 0.33), min_size=1, max_size=2)  # of 3 examples, one is left for the rest


@given(labels(), fractions, st.integers(0, 99))
def test_every_index_is_in_exactly_one_part(y, fractions, seed):
    parts = cut(y, fractions, np.random.default_rng(seed))
    assert len(parts) == len(fractions) + 1
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(y)))


@settings(max_examples=400, deadline=None)
@example(np.repeat([0, 1, 2, 3], [3, 3, 3, 6]), [0.25, 0.4375], 0)  # the large class must not make up for the small
@given(labels(), fractions, st.integers(0, 99))
def test_every_class_is_in_proportion_within_one_example_and_in_every_part(y, fractions, seed):
    parts = cut(y, fractions, np.random.default_rng(seed))
    counts = np.bincount(y)
    for part, fraction in zip(parts, fractions, strict=False):
        assert (abs(np.bincount(y[part], minlength=len(counts)) - counts * fraction) < 1 + 1e-9).all()
    for part in parts:
        assert set(y[part]) == set(y)


@pytest.mark.parametrize("fractions", [[0.9], [0.6, 0.39], [0.01, 0.98]])
def test_greedy_fractions_still_leave_one_of_every_class(fractions):
    y = np.repeat([0, 1], 4)
    for part in cut(y, fractions, np.random.default_rng(0)):
        assert set(y[part]) == {0, 1}


@given(labels(smallest=10), st.floats(0.1, 0.45))
def test_a_part_has_its_fraction_of_all_examples(y, fraction):
    # Rounding each class by itself would give classes of 14 examples 1 of 10% each, and the part 7%.
    part, _ = cut(y, [fraction], np.random.default_rng(0))
    assert len(part) == round(len(y) * fraction)


@given(labels(smallest=1), st.data())
def test_thinning_keeps_the_number_asked_for_and_every_class(y, data):
    n = data.draw(st.integers(len(set(y)), len(y)))
    rows = thin(y, n, np.random.default_rng(0))
    assert len(rows) == n == len(set(rows))
    assert set(y[rows]) == set(y)


@given(st.integers(2, 8), st.integers(10, 40), st.data())
def test_thinning_keeps_proportions_within_one_example(classes, each, data):
    y = np.arange(classes * each) % classes
    n = data.draw(st.integers(classes, len(y)))
    assert (abs(np.bincount(y[thin(y, n, np.random.default_rng(0))]) - n / classes) < 1).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_equal_seeds_give_equal_splits_and_others_do_not(a, b):
    y = np.arange(90) % 3
    source = (np.arange(90.0)[:, None] + y[:, None], y)
    assert load(source, seed=a).split_hash == load(source, seed=a).split_hash
    assert (load(source, seed=a).split_hash == load(source, seed=b).split_hash) == (a == b)


@pytest.mark.parametrize("limit", [None, 20, 50])
def test_loaded_splits_share_no_example(limit):
    y = np.arange(200) % 5
    data = load((np.arange(200.0)[:, None], y), limit=limit)
    rows = [set(split.x[:, 0].tolist()) for split in (data.train, data.valid, data.test)]
    assert len(set.union(*rows)) == sum(map(len, rows)) == (200 if limit is None else min(limit, 160) + min(limit, 40))
    for split in (data.train, data.valid, data.test):  # x still beside its own y
        assert (split.x[:, 0].long() % 5 == split.y).all()


def test_an_example_keeps_its_split_whatever_the_limit():
    source = (np.arange(300.0)[:, None], np.arange(300) % 3)
    whole, part = load(source, seed=4), load(source, seed=4, limit=40)
    for name in ("train", "valid", "test"):
        assert set(getattr(part, name).x[:, 0].tolist()) < set(getattr(whole, name).x[:, 0].tolist())
    assert (len(part.train), len(part.valid), len(part.test)) == (30, 10, 40)  # 40 = 30 + 10, as 240 = 180 + 60


@pytest.mark.parametrize(
    ("fraction", "words"), [(0, "between 0 and 1"), (1.0, "between 0 and 1"), (0.8, "leave something")]
)
def test_fractions_out_of_range(refused, blobs, fraction, words):
    refused(blobs, words, str(fraction), valid_fraction=fraction)


def test_a_class_needs_an_example_for_every_split_to_be_cut(refused):
    y = np.array([0] * 10 + [1] * 2)
    x = np.arange(12.0)[:, None]
    refused((x, y), "class '1'", "at least 3 examples", "train, test, valid", "got 2")
    y[0] = 1
    data = load((x, y))
    assert [len(set(split.y.tolist())) for split in (data.train, data.valid, data.test)] == [2, 2, 2]


def test_limit_needs_room_for_every_class(refused, blobs):
    refused(blobs, "limit should be at least 6", "got 5", limit=5)
    data = load(blobs, limit=6)
    assert sorted(data.train.y.tolist()) == sorted(data.valid.y.tolist()) == [0, 1, 2]


def test_negative_seed(refused, blobs):
    refused(blobs, "seed should be 0 or more, got -1", seed=-1)
