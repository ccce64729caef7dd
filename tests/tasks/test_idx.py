"""Fashion-MNIST from IDX files: small ones written here, and the published ones where Debian's package is installed."""

import gzip
import struct

import numpy as np
import pytest
import torch

from archgrad.tasks import load
from archgrad.tasks.idx import FASHION_MNIST

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 28, 28), dtype=np.uint8)
    labels = (np.arange(90) % 10).astype(np.uint8)
    return dict(zip(NAMES, (images[:60], labels[:60], images[60:], labels[60:]), strict=True))


@pytest.fixture
def folder(tmp_path, arrays):
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.mark.parametrize("zipped", [False, True])
def test_small_files(folder, arrays, zipped):
    if zipped:
        for name in NAMES:
            (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
            (folder / name).unlink()
    data = load(f"fashion-mnist:{folder}")
    assert data.name == "fashion-mnist"
    assert data.classes[9] == "Ankle boot"
    assert len(data.classes) == 10
    assert data.input_shape == (1, 28, 28)
    assert data.train.x.dtype == torch.uint8
    assert (len(data.train), len(data.valid)) == (48, 12)
    assert np.array_equal(data.test.x[:, 0], arrays[NAMES[2]])  # the official test set, untouched
    assert np.array_equal(data.test.y, arrays[NAMES[3]])


def test_the_published_files():
    if not FASHION_MNIST.is_dir():
        pytest.skip("needs Fashion-MNIST: apt-get install dataset-fashion-mnist")
    data = load("fashion-mnist")
    assert (len(data.train), len(data.valid), len(data.test)) == (48000, 12000, 10000)
    assert data.train.y.bincount().tolist() == [4800] * 10
    assert data.valid.y.bincount().tolist() == [1200] * 10
    # 0.2860 and 0.3530 are the mean and standard deviation of its 60,000 images everyone quotes
    assert data.mean[0] / 255 == pytest.approx(0.2860, abs=1e-3)
    assert data.std[0] / 255 == pytest.approx(0.3530, abs=1e-3)
    small = load("fashion-mnist", limit=1000)
    assert (len(small.train), len(small.valid), len(small.test)) == (800, 200, 1000)


def test_missing_folder_and_file(refused, folder, tmp_path):
    refused(f"fashion-mnist:{tmp_path}/no", f"{tmp_path}/no", "apt-get install dataset-fashion-mnist")
    (folder / NAMES[1]).unlink()
    refused(f"fashion-mnist:{folder}", f"{NAMES[1]} or {NAMES[1]}.gz", folder, "got neither")


GOOD = idx(np.zeros((60, 28, 28), np.uint8))


@pytest.mark.parametrize(
    ("content", "words", "more"),
    [
        (b"", "unsigned bytes", "got nothing"),
        (b"\x1f\x8b\x08\x00" + GOOD, "unsigned bytes", "got 1f 8b 08 00"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "unsigned bytes", "got 00 00 0d 03"),
        (GOOD[:3] + b"\x00" + GOOD[4:], "1 to 4 dimensions", "got 00 00 08 00"),
        (GOOD[:3] + b"\x09" + GOOD[4:], "1 to 4 dimensions", "got 00 00 08 09"),
        (GOOD[:10], "the header ends early", ""),
        (GOOD[:-1], "should hold 47040 values for its shape (60, 28, 28), got 47039", ""),
        (GOOD + b"\0", "should hold 47040 values for its shape (60, 28, 28), got more", ""),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "at most 2.1 GB", "announced"),
        (idx(np.zeros((60, 784), np.uint8)), "should have 3 dimensions, got 2", "misnamed"),
        (idx(np.zeros((59, 28, 28), np.uint8)), "x_train and y_train should be equally long, got 59 and 60", ""),
        (idx(np.zeros((60, 0, 28), np.uint8)), "should hold examples, got (60, 1, 0, 28)", ""),
        (idx(np.zeros((60, 28, 27), np.uint8)), "shaped like x_train's, (1, 28, 27), got (1, 28, 28)", ""),
    ],
)
def test_broken_files(refused, folder, content, words, more):
    (folder / NAMES[0]).write_bytes(content)
    refused(f"fashion-mnist:{folder}", words, more)


@pytest.mark.parametrize("content", [gzip.compress(GOOD)[:-20], b"not gzip", b""])
def test_broken_gzip(refused, folder, content):
    (folder / NAMES[0]).unlink()
    (folder / f"{NAMES[0]}.gz").write_bytes(content)
    refused(f"fashion-mnist:{folder}", f"{NAMES[0]}.gz", "fetch it again")
