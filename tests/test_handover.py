"""The winner leaves the house: exports agree with the network, run elsewhere, and a foreign folder runs no code."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from archgrad import handover
from archgrad.errors import UsageError
from archgrad.handover import hand_over
from archgrad.prediction import predict
from archgrad.program import Program, record
from archgrad.reports.graph import describe

SHAPE = (1, 8, 8)
CLASSES = ["cat", "dog", "eel"]


class Small(nn.Module):
    """What winners contain: normalisation inside, branches, squeeze-and-excite, in-place activations, tied weights."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1, 1, 1), 8.0), persistent=False)
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.gate = nn.Linear(16, 16)
        self.tied = nn.Linear(16, 16)
        self.tied.weight = self.gate.weight
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / torch.tensor(4.0))
        x = torch.cat([self.depthwise(x) + x, F.max_pool2d(x, 3, 1, 1)], 1)
        pooled = x.mean((2, 3))
        return self.head(self.tied(pooled * torch.sigmoid(self.gate(pooled))).view(x.shape[0], -1))


def network() -> Small:
    torch.manual_seed(0)
    net = Small()
    with torch.no_grad():  # statistics that a fresh BatchNorm does not have
        for _ in range(3):
            net(16 * torch.rand(16, *SHAPE))
    return net


def over(folder: Path, net: nn.Module, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "architecture": ["conv", "skip"],
        "decisions": [{"name": n, "options": ["conv", "skip"], "when": []} for n in ("first", "second")],
        "classes": CLASSES,
        "input_shape": SHAPE,
        "input_range": (0.0, 16.0),
        "extra": {"params": 123, "macs": 456},
    }
    return hand_over(folder, net, **{**arguments, **changes})


@pytest.fixture(scope="module")
def net() -> Small:
    return network()


@pytest.fixture(scope="module")
def handed(tmp_path_factory: pytest.TempPathFactory, net: Small) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("winner")
    return folder, over(folder, net)


def logits(net: nn.Module, x: Tensor) -> Tensor:
    net.eval()
    with torch.no_grad():
        return net(x)


def test_files_and_description(handed: tuple[Path, dict[str, Any]], net: Small) -> None:
    folder, result = handed
    assert sorted(p.name for p in folder.iterdir()) == sorted(result["files"])
    assert set(result["files"]) >= {"model.safetensors", "architecture.json", "program.json", "model.pt2"}
    card = json.loads((folder / "architecture.json").read_text())
    assert card["architecture"] == {"first": "conv", "second": "skip"}
    assert (card["classes"], card["input_shape"], card["params"]) == (CLASSES, [1, 8, 8], 123)
    assert card["torch"] == torch.__version__
    fresh = Small()
    fresh.load_state_dict(load_file(folder / "model.safetensors"))
    x = 16 * torch.rand(4, *SHAPE)
    assert torch.equal(logits(fresh, x), logits(net, x))


def test_training_mode_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "_onnx", lambda *_: [])
    net = network().train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    over(tmp_path, net)
    assert net.training
    assert net.head[0].training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_pt2_runs_with_pytorch_alone(handed: tuple[Path, dict[str, Any]], net: Small, tmp_path: Path) -> None:
    x = 16 * torch.rand(5, *SHAPE)
    np.savez(tmp_path / "case.npz", x=x.numpy(), y=logits(net, x).numpy(), one=logits(net, x[:1]).numpy())
    script = """
import sys, numpy, torch
case = numpy.load(sys.argv[2])
run = torch.export.load(sys.argv[1]).module()
x = torch.from_numpy(case["x"])
for n, reference in ((5, case["y"]), (1, case["one"])):
    reference = torch.from_numpy(reference)
    assert (run(x[:n]) - reference).abs().max() <= 1e-5 * reference.abs().max(), n
assert "archgrad" not in sys.modules
print("same")
"""
    command = [sys.executable, "-c", script, str(handed[0] / "model.pt2"), str(tmp_path / "case.npz")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.stdout == "same\n", done.stderr


def test_no_paths_of_this_machine_travel(handed: tuple[Path, dict[str, Any]]) -> None:
    here = str(Path(__file__).parent).encode()
    with zipfile.ZipFile(handed[0] / "model.pt2") as archive:
        assert not any(here in archive.read(name) for name in archive.namelist())
    others = [p for p in handed[0].iterdir() if p.name != "model.pt2"]
    assert not any(here in p.read_bytes() for p in others)


def test_onnx_at_other_batch_sizes(handed: tuple[Path, dict[str, Any]], net: Small) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(handed[0] / "model.onnx"), providers=["CPUExecutionProvider"])
    for n in (1, 5, 7):
        x = 16 * torch.rand(n, *SHAPE)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert np.abs(y - logits(net, x).numpy()).max() < 1e-4


def test_stdout_stays_clean(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.export

    def talkative(*args: Any, **kwargs: Any) -> Any:  # as some versions of it are
        print("[torch.onnx] Translate the graph into ONNX...")
        return export(*args, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", talkative)
    over(tmp_path, network())
    assert capfd.readouterr().out == ""


def test_without_onnx_there_is_a_note_and_no_stale_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(b"of an earlier winner")
    find = handover.importlib.util.find_spec
    monkeypatch.setattr(handover.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    result = over(tmp_path, network())
    assert not (tmp_path / "model.onnx").exists()
    assert "model.onnx" not in result["files"]
    assert "onnxscript should be installed" in result["notes"][0]


class BakedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3].reshape(x.shape[0], 3) if x.shape[0] > 1 else x.flatten(1)[:, 3:6]


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.rand(3)


def test_a_batch_size_that_is_baked_in_is_refused(tmp_path: Path) -> None:
    with pytest.raises((UsageError, RuntimeError)):
        over(tmp_path, BakedBatch())
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_disagrees_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"model\.pt2 should agree"):
        over(tmp_path, Noisy())
    assert list(tmp_path.iterdir()) == []


def test_wrong_classes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"logits \[1, 2\], got \[1, 3\]"):
        over(tmp_path, network(), classes=["cat", "dog"])


def test_drawing_of_the_network(handed: tuple[Path, dict[str, Any]]) -> None:
    graph = handed[1]["graph"]
    nodes = {n["id"]: (n["label"], n["detail"]) for n in graph["nodes"]}
    labels = [label for label, _ in nodes.values()]
    assert labels[0] == "input"
    assert labels[-1] == "output"
    assert ("conv · batch norm · ReLU", "3×3, 1→8, 96 parameters") in nodes.values()
    assert ("conv", "3×3, 8→8, depthwise, 72 parameters") in nodes.values()
    assert ("linear · sigmoid", "16→16, 272 parameters") in nodes.values()
    assert labels.count("add") == 1
    assert not {"view", "dropout", "sub", "div"} & set(labels)
    edges = {(nodes[a][0], nodes[b][0]) for a, b in graph["edges"]}
    assert ("conv · batch norm · ReLU", "add") in edges  # the skip edge
    assert ("add", "concatenate") in edges
    assert ("max pool", "concatenate") in edges
    order = list(nodes)
    assert all(order.index(a) < order.index(b) for a, b in graph["edges"])


def test_an_activation_is_merged_only_where_nothing_else_is_read() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return torch.relu(x) + x

    graph = describe(torch.export.export(Two().eval(), (torch.rand(2, *SHAPE),)))
    assert [n["label"] for n in graph["nodes"]] == ["input", "conv", "ReLU", "add", "output"]
    assert len(graph["edges"]) == 5


def test_attention_survives_as_a_program() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
            self.out = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.squeeze(1)
            x = F.gelu(x + self.attend(x, x, x, need_weights=False)[0])
            return self.out(x.masked_fill(x < x.mean(1, keepdim=True), float("-inf")).softmax(1).sum(-1))

    torch.manual_seed(0)
    net = Attention().eval()
    exported = torch.export.export(net, (torch.rand(3, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},))
    program = Program(json.loads(json.dumps(record(exported), allow_nan=False)), net.state_dict())
    for n in (1, 4):
        x = torch.rand(n, *SHAPE)
        torch.testing.assert_close(program(x), logits(net, x), rtol=1e-4, atol=1e-5)


# predict


def expected(net: nn.Module, x: Tensor) -> list[tuple[str, float]]:
    p, k = logits(net, x).softmax(-1).max(-1)
    return [(CLASSES[i], v) for i, v in zip(k.tolist(), p.tolist(), strict=True)]


def found(result: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(p["class"], pytest.approx(p["probability"], abs=1e-5)) for p in result["predictions"]]


@pytest.mark.parametrize("name", ["x", "x_test"])
def test_predict_npz_in_chunks(
    handed: tuple[Path, dict[str, Any]], net: Small, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archgrad.prediction.CHUNK", 4)
    x = torch.randint(0, 17, (10, *SHAPE))
    np.savez(tmp_path / "x.npz", **{name: x.numpy().astype(np.uint8), "other": np.zeros(3)})
    result = predict(handed[0], tmp_path / "x.npz")
    assert result["classes"] == CLASSES
    assert expected(net, x.float()) == found(result)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 1, 8, 8), (3, 8, 8)])
def test_predict_one_example_or_an_unwritten_channel(
    handed: tuple[Path, dict[str, Any]], net: Small, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    x = torch.rand(shape)
    np.save(tmp_path / "x.npy", x.numpy())
    assert expected(net, x.reshape(-1, *SHAPE)) == found(predict(handed[0], tmp_path / "x.npy"))


def test_predict_images(handed: tuple[Path, dict[str, Any]], net: Small, tmp_path: Path) -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(gray).save(tmp_path / "b.png")
    Image.new("RGB", (20, 30), (255, 255, 255)).save(tmp_path / "a.png")
    (tmp_path / "readme.txt").write_text("not an image")
    x = torch.stack([torch.full((1, 8, 8), 16.0), torch.from_numpy(gray).float()[None] / 255 * 16])
    result = predict(handed[0], tmp_path)
    assert [p["file"] for p in result["predictions"]] == ["a.png", "b.png"]
    assert expected(net, x) == found(result)
    assert expected(net, x[1:]) == found(predict(handed[0], tmp_path / "b.png"))


def bad(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    if name == "shape.npy":
        np.save(path, np.zeros((5, 1, 9, 9)))
    elif name == "nan.npy":
        np.save(path, np.full((2, *SHAPE), np.nan))
    elif name == "text.npy":
        np.save(path, np.array(["a"]))
    elif name == "names.npz":
        np.savez(path, images=np.zeros((2, *SHAPE)))
    elif name == "objects.npy":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    elif name == "empty":
        path.mkdir()
    elif name != "absent.npy":
        path.write_bytes(b"nonsense")
    return path


def test_predict_opens_raster_formats_only(handed: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Pillow goes by content: PostScript called .png would reach Ghostscript, a program of its own."""
    Image.new("L", (8, 8)).save(tmp_path / "image.eps")
    (tmp_path / "image.eps").rename(tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as image:
        assert image.format == "EPS"
    with pytest.raises(UsageError, match="cannot identify image file"):
        predict(handed[0], tmp_path / "image.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shape.npy", r"should be \[N, 1, 8, 8\] with N >= 1, got \[5, 1, 9, 9\]"),
        ("nan.npy", "should be finite"),
        ("text.npy", "should hold numbers"),
        ("names.npz", "array 'x' or 'x_test', got \\['images'\\]"),
        ("objects.npy", "without Python objects"),
        ("broken.npz", "should be a NumPy file"),
        ("broken.png", "should be an image"),
        ("table.csv", "should be .npz, .npy, an image"),
        ("empty", "should hold images"),
        ("absent.npy", "should exist"),
    ],
)
def test_predict_refuses(handed: tuple[Path, dict[str, Any]], tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        predict(handed[0], bad(tmp_path, name))
    assert "\n" not in str(caught.value)


def copied(source: Path, target: Path) -> Path:
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    np.save(target / "x.npy", np.zeros((1, *SHAPE)))
    return target


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_foreign_folder_executes_nothing(
    handed: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control first: torch.export.load does unpickle such a file; predict must not open it."""
    folder, marker = copied(handed[0], tmp_path), tmp_path / "executed"
    payload = io.BytesIO()
    torch.save((Payload(marker),), payload)
    with zipfile.ZipFile(handed[0] / "model.pt2") as source, zipfile.ZipFile(folder / "model.pt2", "w") as forged:
        for name in source.namelist():
            forged.writestr(name, payload.getvalue() if "sample_inputs" in name else source.read(name))
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)  # its warning is malformed, pytest minds
    torch.export.load(folder / "model.pt2")
    assert marker.exists()
    marker.unlink()
    predict(folder, folder / "x.npy")
    assert not marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        "aten.from_file.default",
        "aten.relu_.default",
        "aten.matmul.default",
        "aten._native_batch_norm_legit.default",
        "aten.__class__.mro",
        "aten.relu.__init__",
        "aten.save.default",
        "prims.add.default",
        "operator.attrgetter",
        "torch.os.system",
        "os.system",
    ],
)
def test_programs_call_functional_core_operators_only(
    handed: tuple[Path, dict[str, Any]], tmp_path: Path, call: str
) -> None:
    folder = copied(handed[0], tmp_path)
    program = json.loads((folder / "program.json").read_text())
    program["calls"][1]["call"] = call
    (folder / "program.json").write_text(json.dumps(program))
    with pytest.raises(UsageError, match="functional core ATen operators only"):
        predict(folder, folder / "x.npy")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("architecture.json", None, "should hold architecture.json"),
        ("architecture.json", "{", "readable JSON"),
        ("architecture.json", "[]", "JSON object"),
        ("architecture.json", '{"classes": ["a"], "input_shape": ["1"], "input_range": [0, 1]}', "positive integers"),
        ("program.json", None, "should hold program.json"),
        ("program.json", '{"format": 99}', "format 1, got 99"),
        ("program.json", '{"format": 1, "inputs": [], "calls": [{}], "output": "y"}', "belong together"),
        ("program.json", '{"format": 1, "inputs": [], "calls": [], "output": "y"}', "should fit the input shape"),
        ("model.safetensors", None, "should hold model.safetensors"),
        ("model.safetensors", "nonsense", "should be a safetensors file"),
    ],
)
def test_damaged_folders_are_a_sentence(
    handed: tuple[Path, dict[str, Any]], tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    folder = copied(handed[0], tmp_path)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(UsageError, match=message):
        predict(folder, folder / "x.npy")


@pytest.mark.parametrize(
    ("call", "args"),
    [
        ("operator.getitem", [[1, 2], 5]),
        ("operator.floordiv", [1, 0]),
        ("operator.mul", [["a"], 10**15]),
        ("aten.relu.default", [[1.0]]),
    ],
)
def test_a_program_that_fails_while_it_runs_is_a_sentence(
    handed: tuple[Path, dict[str, Any]], tmp_path: Path, call: str, args: list[Any]
) -> None:
    folder = copied(handed[0], tmp_path)
    program = json.loads((folder / "program.json").read_text())
    program["calls"].insert(0, {"name": "odd", "call": call, "args": args, "kwargs": {}})
    (folder / "program.json").write_text(json.dumps(program))
    with pytest.raises(UsageError, match="should fit the input shape"):
        predict(folder, folder / "x.npy")
