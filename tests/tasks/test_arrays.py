"""Arrays from an .npz file, from memory and from datasets: layouts, given splits, and everything that is refused."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from archgrad.tasks import load


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "some.npz", **arrays)
        return tmp_path / "some.npz"

    return write


def test_given_splits_are_kept_as_they_are(save, blobs):
    x, y = blobs
    path = save(
        x_train=x[:30],
        y_train=y[:30],
        x_valid=x[30:40],
        y_valid=y[30:40],
        x_test=x[40:],
        y_test=y[40:],
        classes=np.array(["ant", "bee", "cat"]),
        made_by=np.array("someone"),
    )
    data = load(str(path), seed=9)
    assert data.name == "some"
    assert data.classes == ("ant", "bee", "cat")
    for split, rows in ((data.train, slice(30)), (data.valid, slice(30, 40)), (data.test, slice(40, 60))):
        assert np.array_equal(split.x, x[rows])
        assert np.array_equal(split.y, y[rows])


@pytest.mark.parametrize("given", ["valid", "test"])
def test_a_missing_split_is_cut_off_train(save, blobs, given):
    x, y = blobs
    missing = {"valid": "test", "test": "valid"}[given]
    data = load(save(**{"x_train": x[:50], "y_train": y[:50], f"x_{given}": x[50:], f"y_{given}": y[50:]}))
    assert np.array_equal(getattr(data, given).x, x[50:])
    assert (len(data.train), len(getattr(data, missing))) == (40, 10)
    both = np.concatenate([data.train.x, getattr(data, missing).x])
    assert np.array_equal(np.sort(both, 0), np.sort(x[:50], 0))


def test_limit_counts_given_train_and_valid_together(save, blobs):
    x, y = blobs
    path = save(x_train=x[:30], y_train=y[:30], x_valid=x[30:45], y_valid=y[30:45], x_test=x[45:], y_test=y[45:])
    data = load(path, limit=9)
    assert (len(data.train), len(data.valid), len(data.test)) == (6, 3, 9)
    assert {tuple(row) for row in data.train.x.tolist()} < {tuple(row) for row in x[:30].tolist()}


LAYOUTS = [
    ((7,), (7,)),
    ((5, 6), (1, 5, 6)),
    ((3, 5, 6), (3, 5, 6)),
    ((5, 6, 3), (3, 5, 6)),
    ((1, 5, 6), (1, 5, 6)),
    ((5, 6, 4), (4, 5, 6)),
    ((3, 8, 3), (3, 8, 3)),  # could be either: channels first
]


@pytest.mark.parametrize(("shape", "expected"), LAYOUTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_layouts(shape, expected, dtype):
    x = np.random.default_rng(0).integers(0, 255, (12, *shape)).astype(dtype)
    data = load((x, np.arange(12) % 2))
    assert data.input_shape == expected
    assert data.train.x.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    assert data.train.x.is_contiguous()
    assert len(data.mean) == len(data.std) == expected[0]
    first = next(
        i for i in range(12) if np.array_equal(np.sort(x[i].ravel()), np.sort(data.train.x[0].numpy().ravel()))
    )
    image = np.moveaxis(x[first], -1, 0) if expected != shape and len(shape) == 3 else x[first].reshape(expected)
    assert np.array_equal(data.train.x[0], image)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros(12), "[N, C, H, W], [N, H, W, C], [N, H, W] or [N, F], got (12,)"),
        (np.zeros((12, 1, 2, 3, 4)), "got (12, 1, 2, 3, 4)"),
        (np.zeros((12, 5, 6, 7)), "1, 3 or 4 channels in its second or last dimension, got (12, 5, 6, 7)"),
        (np.zeros((12, 0)), "should hold examples, got (12, 0)"),
        (np.zeros((11, 2)), "x_train and y_train should be equally long, got 11 and 12"),
        (np.zeros((12, 2), np.int64), "uint8 or float, got int64; convert it with x.astype('float32')"),
        (np.zeros((12, 2), complex), "uint8 or float, got complex128"),
        (np.full((12, 2), "a"), "uint8 or float, got <U1"),
        ([[1, 2], [3]] * 6, "x should be an array, got ragged rows"),
        (np.array([[None]] * 12), "x should be numbers, got Python objects"),
    ],
)
def test_wrong_x(refused, x, words):
    refused((x, np.arange(12) % 2), words)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_in_float32(refused, save, blobs, bad):
    x, y = blobs
    x = x.astype(np.float64)
    x[[3, 5, 5], [0, 1, 2]] = bad
    refused((x, y), "x_train", "got 3 NaN or infinite values of 240")
    good = np.zeros((9, 4))
    refused(save(x_train=good, y_train=np.arange(9) % 3, x_test=x, y_test=y), "some: x_test", "got 3 NaN or infinite")


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0.0, 1.0] * 6, "y_train should be integers, got float64; number the classes and cast: y.astype('int64')"),
        (["a", "b"] * 6, "y_train should be integers, got <U1"),
        ([True, False] * 6, "y_train should be integers, got bool"),
        ([[0], [1]] * 6, "one label an example, [N], got (12, 1); use y.argmax(-1)"),
        ([0, -1] * 6, "y_train should be 0, 1, 2, ..., got -1"),
        (np.array([0, 2**63] * 6, np.uint64), "should be 0, 1, 2, ..., got 9223372036854775808"),
        ([0, 2] * 6, "every class 0..2, got 1 without an example (1); renumber"),
        ([1, 2] * 6, "every class 0..2, got 1 without an example (0)"),
        ([0, 9] * 6, "got 8 without an example (1, 2, 3, 4, 5, ...)"),
        ([0, 10**9] * 6, "at least as many examples as classes, got 12 examples for 1000000001 classes"),
        ([0] * 12, "at least two classes, got one"),
        ([0] * 11 + [1], "class '1' should have at least 3 examples, one each for train, test, valid, got 1"),
    ],
)
def test_wrong_labels(refused, y, words):
    refused((np.zeros((12, 2)), y), words)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, ">i2", np.uint32, np.uint64])
def test_any_integer_labels(dtype):
    data = load((np.zeros((12, 2)), (np.arange(12) % 3).astype(dtype)))
    assert data.train.y.dtype == torch.int64
    assert data.classes == ("0", "1", "2")


def test_other_byte_orders(blobs):
    x, y = blobs
    assert load((x.astype(">f8"), y)).split_hash == load((x, y)).split_hash


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"x_test": np.zeros((4, 3)), "y_test": [0, 1, 0, 1]},
            "x_test should hold examples shaped like x_train's, (2,), got (3,)",
        ),
        (
            {"x_test": np.zeros((4, 2)), "y_test": [0, 1, 2, 5]},
            "y_test should hold labels that y_train has, 0..1, got also 2, 5",
        ),
        ({"x_test": np.zeros((0, 2)), "y_test": np.zeros(0, int)}, "x_test should hold examples, got (0, 2)"),
        ({"x_test": np.zeros((4, 2), np.uint8), "y_test": [0, 1, 0, 1]}, "x_test should have x_train's type"),
        (
            {"x_valid": np.zeros((4, 2)), "y_valid": [0, 1, 0]},
            "x_valid and y_valid should be equally long, got 4 and 3",
        ),
        ({"x_test": np.zeros((4, 2))}, "should have y_test beside x_test"),
        ({"y_valid": [0, 1]}, "should have x_valid beside y_valid"),
        ({"x_val": np.zeros((4, 2)), "y_val": [0, 1, 0, 1]}, "x_valid, y_valid, x_test, y_test, got x_val"),
        ({"classes": ["a", "b", "c"]}, "got 1 without an example (c)"),
        ({"classes": ["a"]}, "y_train should be below 1, the number of class names, got 1"),
        ({"classes": ["a", "a"]}, "classes should be distinct strings"),
        ({"classes": [1, 2]}, "classes should be distinct strings, [C], got int64 (2,)"),
        ({"classes": list("abcdefghijklmnop")}, "as many examples as classes, got 12 examples for 16 classes"),
    ],
)
def test_wrong_npz_contents(refused, save, arrays, words):
    refused(save(x_train=np.zeros((12, 2)), y_train=np.arange(12) % 2, **arrays), words)


def test_an_npz_without_train_lists_its_keys(refused, save):
    refused(save(data=np.zeros(3), labels=np.zeros(3)), "should have the keys x_train and y_train, got data, labels")
    refused(save(x_train=np.zeros((3, 2))), "got x_train;")


class Trap:
    """Unpickling it leaves a trace."""

    def __reduce__(self):
        return (open, (Trap.file, "w"))


def test_pickles_are_refused_unread(refused, tmp_path, save):
    Trap.file = str(tmp_path / "trace")
    refused(save(x_train=np.array([Trap()]), y_train=np.zeros(1, int)), "x_train should be numbers or strings", "pickl")
    whole = tmp_path / "whole.npz"
    np.array([Trap()]).dump(whole)
    refused(whole, "whole.npz should be readable, as np.savez writes it")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("keep", [0, 10, 300, -10])
def test_a_truncated_npz(refused, save, blobs, keep):
    path = save(x_train=blobs[0], y_train=blobs[1])
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, path, "should be readable", "save it again")


def test_an_npz_with_a_flipped_bit(refused, save, blobs):
    path = save(x_train=blobs[0], y_train=blobs[1])
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)
    refused(path, "x_train should be readable", "CRC")


def test_an_npz_with_a_member_that_is_no_array(refused, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x_train.npy", "hello")
    refused(tmp_path / "a.npz", "x_train should be readable", "not an array")


def test_an_npz_that_unpacks_to_too_much(refused, save, blobs, monkeypatch):
    monkeypatch.setattr("archgrad.tasks.arrays.MAX_BYTES", 1000)
    refused(save(x_train=blobs[0], y_train=blobs[1]), "at most 0.0 GB", "uint8 or fewer")


class Listed(Dataset):
    def __init__(self, items, **attributes):
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_a_dataset_equals_the_pair_it_was_made_of(blobs):
    x, y = map(torch.as_tensor, blobs)
    data = load(TensorDataset(x, y))
    assert data.name == "TensorDataset"
    assert data.split_hash == load((x, y)).split_hash == load(blobs).split_hash
    arrays = Listed([(row, int(label)) for row, label in zip(*blobs, strict=True)], classes=["a", "b", "c"])
    assert load(arrays).split_hash == data.split_hash
    assert load(arrays).classes == ("a", "b", "c")


@pytest.mark.parametrize(("mode", "shape"), [("L", (1, 5, 4)), ("1", (1, 5, 4)), ("RGB", (3, 5, 4)), ("P", (3, 5, 4))])
def test_a_dataset_of_pil_images(mode, shape):
    images = [Image.new("RGB", (4, 5), (i, 2 * i, 3 * i)).convert(mode) for i in range(12)]
    data = load(Listed([(image, i % 2) for i, image in enumerate(images)]))
    assert data.input_shape == shape
    assert data.train.x.dtype == torch.uint8
    if mode == "RGB":
        assert (data.train.x[:, 2, 0, 0] == 3 * data.train.x[:, 0, 0, 0]).all()


class Endless(IterableDataset):
    def __iter__(self):
        yield from ()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (Endless(), "Endless should be a map-style dataset"),
        (Listed([]), "Listed should hold examples, got none"),
        (Listed([torch.zeros(2)]), "pairs (x, label), got Tensor at 0"),
        (Listed([(torch.zeros(2), 0, 1)]), "pairs (x, label), got tuple at 0"),
        (Listed([(torch.zeros(2), 0), (torch.zeros(3), 1)]), "one shape and type, (2,) float32, got (3,) float32 at 1"),
        (Listed([(torch.zeros(2), 0), (torch.zeros(2).byte(), 1)]), "got (2,) uint8 at 1"),
        (Listed([(torch.zeros(2), torch.zeros(3))]), "one whole number as label, got shape (3,) at 0"),
        (Listed([(torch.zeros(2), "cat")] * 4), "y_train should be integers, got <U3"),
        (Listed([(torch.zeros(2), None)] * 4), "label at 0 should be numbers, got Python objects (NoneType)"),
        (Listed([(Image.new("I;16", (2, 2)), 0)]), "8 bits a channel, got mode I;16"),
        ((np.zeros((4, 2)),), "a pair (x, y), got 1 items"),
    ],
)
def test_wrong_objects(refused, source, words):
    refused(source, words)
