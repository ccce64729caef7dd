"""Your own data: an .npz file and a folder of images. Here both are made from scikit-learn's digits."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import archgrad

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def write_npz(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """x_train and y_train are needed; splits that are missing (here valid) are cut off train."""
    np.savez(path, x_train=x[:1400], y_train=y[:1400], x_test=x[1400:], y_test=y[1400:], classes=np.array(NAMES))


def write_folder(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """One folder a class: path/three/17.png. Folders train/, valid/, test/ above them would be kept as splits."""
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        folder = path / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("own-data"))
    options = parser.parse_args()

    digits = load_digits()
    x, y = (digits.images * 255 / 16).astype(np.uint8), digits.target  # [1797, 8, 8] in 0..255
    options.folder.mkdir()
    write_npz(options.folder / "digits.npz", x, y)
    write_folder(options.folder / "images", x, y)
    for source in (options.folder / "digits.npz", options.folder / "images"):
        data = archgrad.load(source)
        print(f"{source}: {data.train}, {data.valid}, {data.test}, classes {data.classes}")

    result = archgrad.search(
        options.folder / "digits.npz",
        "mlp",
        trials=options.trials,
        epochs=options.epochs,
        workers=options.workers,
        out=options.folder / "run",
    )
    print("\n".join(result.summary["verdict"]))
    found = archgrad.predict(options.folder / "run", options.folder / "images" / "seven")
    right = sum(row["class"] == "seven" for row in found["predictions"])
    print(f"{right} of {len(found['predictions'])} images in seven/ are called seven")
