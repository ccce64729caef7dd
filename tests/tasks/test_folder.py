"""Folders of images: CIFAR-10 written as JPEG files, and every kind of entry that does not belong."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from archgrad.errors import UsageError
from archgrad.tasks import load

CIFAR = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10_jpeg_subset.npz"


def write(root, size=(6, 5), mode="RGB", count=5, classes=("cat", "dog"), ending="png"):
    """Plain images; the red (or only) value is 40 * class + number."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            color = 40 * c + i
            image = Image.new(mode, size, (color, 200, 7)[: len(mode)] if mode == "RGB" else color)
            image.save(root / name / f"{i}.{ending}")
    return root


@pytest.mark.parametrize("given", [("train",), ("train", "test"), ("train", "valid", "test")])
def test_cifar10_from_jpeg_files(tmp_path, given):
    if not CIFAR.is_file():
        pytest.skip(f"needs the CIFAR-10 subset {CIFAR.name} in the folder shared/data beside the repository")
    with np.load(CIFAR) as file:
        jpeg, offsets, labels = (file[f"train_{kind}"] for kind in ("jpeg", "offsets", "labels"))
        classes = file["classes"]
    for i in range(300):
        part = given[i % len(given)] if len(given) > 1 else "."
        folder = tmp_path / part / classes[labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:03}.jpg").write_bytes(jpeg[offsets[i] : offsets[i + 1]].tobytes())
    data = load(tmp_path)
    assert data.name == tmp_path.name
    assert data.classes == tuple(sorted(classes))
    assert data.input_shape == (3, 32, 32)
    assert data.train.x.dtype == torch.uint8
    lengths = [len(split) for split in (data.train, data.valid, data.test)]
    assert lengths == {1: [180, 60, 60], 2: [120, 30, 150], 3: [100, 100, 100]}[len(given)]
    # Every image is there with its label: decoded here by another road, and matched by its pixels.
    known = {}
    for i in range(300):
        with Image.open(next(tmp_path.rglob(f"{i:03}.jpg"))) as image:
            known[np.asarray(image).transpose(2, 0, 1).tobytes()] = str(classes[labels[i]])
    found = {
        x.numpy().tobytes(): data.classes[y]
        for split in (data.train, data.valid, data.test)
        for x, y in zip(split.x, split.y.tolist(), strict=True)
    }
    assert found == known
    # CIFAR-10's quoted channel means are 0.491, 0.482, 0.447
    assert np.array(data.mean) / 255 == pytest.approx([0.491, 0.482, 0.447], abs=0.05)


def test_classes_and_labels(tmp_path):
    data = load(write(tmp_path, classes=("b", "a", "10", "9")))
    assert data.classes == ("10", "9", "a", "b")
    written = {"b": 0, "a": 1, "10": 2, "9": 3}
    for split in (data.train, data.valid, data.test):
        for x, y in zip(split.x, split.y.tolist(), strict=True):
            assert x[0, 0, 0] // 40 == written[data.classes[y]]
            assert x[1:, 0, 0].tolist() == [200, 7]


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("P", 3)])
def test_grey_stays_grey(tmp_path, mode, channels):
    assert load(write(tmp_path, mode=mode)).input_shape == (channels, 5, 6)


def test_one_coloured_image_makes_all_of_them_rgb(tmp_path):
    write(tmp_path, mode="L")
    Image.new("RGB", (6, 5), (255, 0, 0)).save(tmp_path / "dog" / "0.png")
    data = load(tmp_path)
    every = torch.cat([data.train.x, data.valid.x, data.test.x])
    assert every.shape[1:] == (3, 5, 6)
    assert (every[:, 0] == every[:, 1]).flatten(1).all(1).sum() == 9


def test_palettes_and_transparency(tmp_path):
    write(tmp_path, mode="RGB")
    image = Image.new("RGBA", (6, 5), (9, 8, 7, 0))
    image.save(tmp_path / "cat" / "0.png")
    image.convert("P").save(tmp_path / "cat" / "1.png", transparency=b"\0" * 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(tmp_path).input_shape == (3, 5, 6)


def test_the_most_common_size_wins_unless_another_is_given(tmp_path):
    write(tmp_path, size=(6, 5))
    write(tmp_path, size=(20, 30), count=2)  # 4 of 10
    assert load(tmp_path).input_shape == (3, 5, 6)
    assert load(tmp_path, image_size=8).input_shape == (3, 8, 8)
    data = load(tmp_path, image_size=(4, 7))
    assert data.input_shape == (3, 4, 7)
    assert (data.train.x[:, 1] == 200).all()  # resizing a plain image leaves it plain
    write(tmp_path, size=(20, 30), count=3)
    assert load(tmp_path).input_shape == (3, 30, 20)


@pytest.mark.parametrize("size", [0, -1, (3, 0)])
def test_image_size_is_positive(refused, tmp_path, size):
    refused(write(tmp_path), "image_size should be positive", size, image_size=size)


def test_hidden_files_are_skipped_and_others_named(refused, tmp_path):
    write(tmp_path)
    for folder in (tmp_path, tmp_path / "cat"):
        (folder / ".DS_Store").write_text("x")
    (tmp_path / ".cache").mkdir()
    assert len(load(tmp_path).classes) == 2
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    refused(tmp_path, "cat/notes.txt should be an image", "JPEG", "remove or hide it")


def test_a_file_or_a_folder_in_the_wrong_place(refused, tmp_path):
    write(tmp_path)
    (tmp_path / "cat" / "more").mkdir()
    refused(tmp_path, "cat should hold images only, got more")
    (tmp_path / "cat" / "more").rmdir()
    (tmp_path / "README").write_text("hello")
    refused(tmp_path, "should hold class folders only, got the file README")


def test_empty_folders(refused, tmp_path):
    refused(tmp_path, "one folder a class, got none")
    write(tmp_path)
    (tmp_path / "eel").mkdir()
    refused(tmp_path, "images of class 'eel', got none")


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
@pytest.mark.parametrize("keep", [0, 20, 0.9])
def test_a_broken_image_is_named(refused, tmp_path, ending, keep):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    write(tmp_path)
    file = tmp_path / "dog" / f"broken.{ending}"
    Image.fromarray(noise).save(file)
    load(tmp_path)  # fine as yet
    content = file.read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    refused(tmp_path, f"dog/broken.{ending} should be an image", "got: ")


def test_random_damage_is_an_error_that_names_the_file_or_none(tmp_path):
    # Whatever a broken file makes Pillow raise, the user sees one line with its name.
    rng = np.random.default_rng(0)
    write(tmp_path)
    messages = []
    for ending in ("png", "jpg", "gif", "tiff", "webp"):
        file = tmp_path / "dog" / f"broken.{ending}"
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(file)
        content = np.frombuffer(file.read_bytes(), np.uint8)
        for _ in range(20):
            damaged = content.copy()
            damaged[rng.integers(0, len(content), 3)] = rng.integers(0, 256, 3)
            file.write_bytes(damaged.tobytes())
            try:
                load(tmp_path, image_size=4)
            except UsageError as error:
                messages.append((ending, str(error)))
        file.unlink()
    assert len(messages) > 20  # else the damage was none
    assert all(f"broken.{ending}" in message and "\n" not in message for ending, message in messages)


def test_too_many_pixels(refused, tmp_path, monkeypatch):
    write(tmp_path)
    Image.new("L", (100, 90)).save(tmp_path / "cat" / "huge.png")
    monkeypatch.setattr("archgrad.tasks.folder.MAX_PIXELS", 8999)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as many a program does
    refused(tmp_path, "cat/huge.png should have at most 8999 pixels", "100 x 90")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8000)  # Pillow would only warn
    refused(tmp_path, "cat/huge.png should have at most", "decompression bomb")
    monkeypatch.setattr("archgrad.tasks.folder.MAX_PIXELS", 9000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    load(tmp_path)


def test_sixteen_bits_are_not_clipped_in_silence(refused, tmp_path):
    write(tmp_path, mode="L")
    Image.fromarray(np.full((5, 6), 1000, np.uint16)).save(tmp_path / "cat" / "deep.png")
    refused(tmp_path, "cat/deep.png should have 8 bits a channel, got mode I;16")


def test_the_decoded_set_should_fit(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("archgrad.tasks.folder.MAX_BYTES", 10 * 3 * 5 * 6)
    load(write(tmp_path))
    refused(tmp_path, "should decode to at most", "10 images of 5 x 7", "set image_size", image_size=(5, 7))


def test_links_stay_inside(refused, tmp_path):
    root, outside = write(tmp_path / "data"), write(tmp_path / "outside", classes=("eel",))
    (root / "cat" / "9.png").symlink_to(root / "dog" / "0.png")
    assert len(load(root).classes) == 2
    (tmp_path / "alias").symlink_to(root)  # the folder itself may be reached by a link
    assert load(tmp_path / "alias").split_hash == load(root).split_hash
    link = root / "cat" / "link.png"
    link.symlink_to(outside / "eel" / "0.png")
    refused(root, "cat/link.png", "leads out of it")
    link.unlink()
    link.symlink_to(root / "nothing")
    refused(root, "cat/link.png", "a broken link")
    link.unlink()
    link.symlink_to(link)
    refused(root, "cat/link.png", "a broken link")
    link.unlink()
    (root / "eel").symlink_to(outside / "eel")
    refused(root, "data/eel", "leads out of it")
    (root / "eel").unlink()
    (root / "train").symlink_to(outside)
    refused(root, "data/train", "leads out of it")


def test_given_parts_need_train_and_its_classes(refused, tmp_path):
    write(tmp_path / "test", classes=("cat", "eel"))
    refused(tmp_path, "should have train/ beside test/")
    write(tmp_path / "train")
    refused(tmp_path, "test should have classes that train/ has, got also 'eel'")
    shutil.rmtree(tmp_path / "test")
    write(tmp_path / "test", classes=("dog",))
    data = load(tmp_path)
    assert data.test.y.tolist() == [1] * 5  # a given split may lack a class; the others keep their numbers
    (tmp_path / "val").mkdir()
    refused(tmp_path, "only train/, valid/ and test/, with class folders in them, got val")


def test_a_class_may_be_called_train(tmp_path):
    assert load(write(tmp_path, classes=("plane", "train"))).classes == ("plane", "train")


def test_the_same_folder_gives_the_same_hash(tmp_path):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", classes=("dog", "cat"))
    assert load(a).split_hash == load(a).split_hash
    assert load(a).split_hash != load(b).split_hash


def test_an_unreadable_folder(refused, tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", denied)  # chmod does not stop root
    refused(tmp_path, "should be readable", "Permission denied", "check its permissions")
