"""What load promises of Data: types, statistics of train alone, a fingerprint, and a name it knows or explains."""

import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from archgrad.tasks import load


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def test_digits_are_the_published_ones(digits):
    assert digits.name == "digits"
    assert digits.classes == tuple("0123456789")
    assert digits.input_shape == (1, 8, 8)
    assert digits.range == (0.0, 16.0)
    assert (len(digits.train), len(digits.valid), len(digits.test)) == (1079, 359, 359)
    every = torch.cat([digits.train.x, digits.valid.x, digits.test.x])
    assert every.sum() == 561718  # the sum of all pixels of the 1,797 images: none lost, none twice
    for split in (digits.train, digits.valid, digits.test):
        assert split.x.dtype == torch.float32
        assert split.y.dtype == torch.int64
        assert split.x.shape == (len(split), 1, 8, 8)


def test_digits_are_stratified(digits):
    every = sum(split.y.bincount(minlength=10) for split in (digits.train, digits.valid, digits.test))
    for split in (digits.valid, digits.test):
        assert (split.y.bincount(minlength=10) - 0.2 * every).abs().max() < 1


def test_images_still_look_like_their_labels(digits):
    # The nearest class mean of train classifies digits at about 90%; labels out of step with images give 10%.
    means = torch.stack([digits.train.x[digits.train.y == c].mean(0).flatten() for c in range(10)])
    for split in (digits.train, digits.valid, digits.test):
        guess = torch.cdist(split.x.flatten(1), means).argmin(1)
        assert (guess == split.y).float().mean() > 0.8


@pytest.mark.parametrize("seed", [0, 1])
def test_statistics_are_of_train_alone(seed):
    data = load("digits", seed=seed)
    assert data.mean == pytest.approx([data.train.x.double().mean().item()], rel=1e-9)
    assert data.std == pytest.approx([data.train.x.double().std(correction=0).item()], rel=1e-9)
    every = torch.cat([data.train.x, data.valid.x, data.test.x]).double()
    assert data.mean != pytest.approx([every.mean().item()], rel=1e-6)


def test_statistics_are_per_channel_and_exact_for_bytes():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (30, 3, 5, 7), dtype=np.uint8)
    x[:, 1] //= 4
    data = load((x, np.arange(30) % 2))
    assert data.range == (0.0, 255.0)
    assert data.train.x.dtype == torch.uint8
    values = data.train.x.double().transpose(0, 1).flatten(1)
    assert data.mean == pytest.approx(values.mean(1).tolist(), rel=1e-12)
    assert data.std == pytest.approx(values.std(1, correction=0).tolist(), rel=1e-12)


def test_statistics_do_not_depend_on_the_chunks():
    rng = np.random.default_rng(0)
    x = rng.normal(1e4, 1e-1, (40, 1, 512, 512)).astype(np.float32)  # 24 images in train are two chunks
    data = load((x, np.arange(40) % 2))
    values = data.train.x.double()
    assert data.mean == pytest.approx([values.mean().item()], rel=1e-12)
    assert data.std == pytest.approx([values.std(correction=0).item()], rel=1e-9)


def test_range_of_floats_is_that_of_train():
    x = np.linspace(-3, 5, 90)[:, None]
    data = load((x, np.arange(90) % 3))
    assert data.range == (data.train.x.min().item(), data.train.x.max().item())


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e9])
def test_a_constant_feature_has_standard_deviation_one(blobs, constant):
    x, y = blobs
    x[:, 2] = constant
    data = load((x, y))
    assert data.std[2] == 1
    assert data.mean[2] == np.float32(constant)
    assert all(s > 0 and s != 1 for i, s in enumerate(data.std) if i != 2)


def test_the_hash_changes_when_anything_moves(blobs):
    x, y = blobs
    hashes = [load((x, y)).split_hash]
    for i in (0, 31, 59):  # wherever it went, train, valid or test
        moved = x.copy()
        moved[i, 3] += 1
        hashes.append(load((moved, y)).split_hash)
    hashes.append(load((x, (y + 1) % 3)).split_hash)
    hashes.append(load((x.astype(np.uint8), y)).split_hash)
    hashes.append(load((x.reshape(60, 2, 2), y)).split_hash)
    assert len(set(hashes)) == len(hashes)


def test_the_hash_tells_the_splits_apart(tmp_path, blobs):
    # The same rows, dealt out differently: swapping valid and test is another split.
    x, y = blobs
    a, b, c = (slice(0, 30), slice(30, 45), slice(45, 60))
    hashes = set()
    for valid, test in ((b, c), (c, b)):
        parts = {"x_train": x[a], "y_train": y[a], "x_valid": x[valid], "y_valid": y[valid], "x_test": x[test]}
        np.savez(tmp_path / "a.npz", **parts, y_test=y[test])
        hashes.add(load(tmp_path / "a.npz").split_hash)
    assert len(hashes) == 2


def test_the_hash_is_the_same_in_another_process(digits):
    code = "from archgrad.tasks import load; print(load('digits').split_hash)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digits.split_hash


def test_data_pickles_small_and_unchanged(blobs):
    data = load(blobs)
    packed = pickle.dumps(data)
    again = pickle.loads(packed)
    assert again.split_hash == data.split_hash
    assert torch.equal(again.test.x, data.test.x)
    assert len(packed) < 60 * (4 * 4 + 8) + 4000  # the rows once: no split drags the whole array along


def test_data_is_frozen_and_prints_short(digits):
    with pytest.raises(FrozenInstanceError):
        digits.name = "other"
    assert "float32 [1079, 1, 8, 8]" in repr(digits)
    assert len(repr(digits)) < 800


def test_importing_does_not_load_scikit_learn_or_torchvision():
    code = "import sys, archgrad.tasks; print([m for m in ('torchvision', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "near"),
    [("digit", "did you mean digits?"), ("fashion_mnist", "did you mean fashion-mnist?"), ("qqq", "give one of them")],
)
def test_an_unknown_name_gets_the_nearest(refused, name, near):
    refused(name, "digits, fashion-mnist, an .npz file or a folder", repr(name), near)


def test_a_built_in_name_wins_over_a_folder(digits, tmp_path, monkeypatch, refused):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("digits").split_hash == digits.split_hash
    refused("./digits", "one folder a class")


def test_a_missing_path_is_not_taken_for_a_name(refused, tmp_path):
    refused(tmp_path / "digits", "does not exist", tmp_path)
    refused("nowhere.npz", "nowhere.npz", "does not exist")


def test_a_file_of_another_kind(refused, tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    refused(tmp_path / "a.csv", "a folder or end in .npz", "np.savez")


def test_an_object_of_another_kind(refused):
    refused(3, "a name, a path, a Dataset or a pair (x, y), got int")


def test_image_size_is_for_folders(refused, blobs):
    refused("digits", "image_size is for folders", image_size=8)
    refused(blobs, "image_size is for folders", image_size=8)
