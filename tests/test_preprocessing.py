"""One way from a file to the network: nas's validation, an export's preprocess and predict.py, its card and its metadata."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from nas.common.files import weights_content
from nas.data.sets import load_data
from nas.export.folder import ExportOptions, export_candidate
from nas.models.networks import build
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import SearchSettings
from nas.runs.store import RunDirectory
from nas.spaces.files import load_space
from nas.training.device_data import DeviceData
from nas.training.history import EpochMetrics

STORED, INPUT = 24, 16
SPACE = """
name: two-sizes
input: {{channels: {channels}, size: [16, 24]}}
stem: {{kernel_size: 3, stride: 1, out_channels: 8}}
stages:
  - {{depth: 2, out_channels: 16, stride: 2, kernel_size: [3, 5], expansion: 2}}
head_channels: 32
"""
FORMATS = ("pt2", "onnx", "torchscript")

_FRESH = """
import json, sys
sys.modules["nas"] = None
import numpy as np
import torch
from PIL import Image
from model import load, preprocess
paths, plain = json.loads(sys.argv[1])
roads = {
    "paths": preprocess(paths),
    "one at a time": torch.cat([preprocess(path) for path in paths]),
    "open files": torch.cat([preprocess(open(path, "rb")) for path in paths]),
    "PIL images": preprocess([Image.open(path) for path in paths]),
    "stored by nas": preprocess(torch.load("stored.pt", weights_only=True)),
}
arrays = [np.asarray(Image.open(path)) for path in plain]
some = {
    "arrays": preprocess(arrays),
    "tensors": preprocess([torch.from_numpy(array.transpose(2, 0, 1).copy()) for array in arrays]),
    "a batch of arrays": torch.cat([preprocess(array[None]) for array in arrays]),
    "a batch of tensors": torch.cat([preprocess(torch.from_numpy(array.transpose(2, 0, 1).copy())[None]) for array in arrays]),
}
with torch.inference_mode():
    network = load()
    logits = {name: network(images) for name, images in (roads | some).items()}
torch.save((roads, some, logits), "found.pt")
"""


def picture(height: int, width: int, seed: int) -> Image.Image:
    """Smooth and unlike itself however it is turned or shifted."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(7 * x + 3 * y + phase) + 0.6 * np.cos(5 * y * (1 + x) - phase) for phase in phases]
    return Image.fromarray((127 + 75 * np.stack(waves, 2)).clip(0, 255).astype(np.uint8))


def write_photos(folder: Path) -> None:
    """Files of many kinds and sizes, and of each kind more than one where its size decides something."""
    exif = {turn: Image.Exif() for turn in (3, 5, 6, 8)}
    for turn, tags in exif.items():
        tags[0x0112] = turn
    see_through = picture(40, 60, 5).convert("RGBA")
    see_through.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 60), (40, 1)).astype(np.uint8)))
    grey_see_through = picture(44, 31, 12).convert("LA")
    grey_see_through.putalpha(Image.fromarray(np.tile(np.linspace(255, 0, 44)[:, None], (1, 31)).astype(np.uint8)))
    palette = picture(50, 30, 6).quantize(16)
    palette.info["transparency"] = 3
    deep = Image.fromarray(np.asarray(picture(33, 47, 7).convert("L")).astype(np.uint16) * 257)
    photos = {
        "a/small.png": picture(10, 13, 0),
        "a/large.jpg": picture(300, 210, 1),
        "a/landscape.jpg": picture(31, 97, 2),
        "a/portrait.png": picture(80, 25, 3),
        "a/as_stored.png": picture(STORED, STORED, 4),
        "a/see_through.png": see_through,
        "b/see_through.png": grey_see_through,
        "b/palette.png": palette,
        "b/palette.gif": picture(26, 64, 9).quantize(8),
        "b/deep.png": deep,
        "b/grey.jpg": picture(29, 41, 8).convert("L"),
        "b/cmyk.jpg": picture(64, 48, 10).convert("CMYK"),
        "b/two_levels.png": picture(70, 90, 11).convert("1"),
    }
    for name, photo in photos.items():
        (folder / "val" / name).parent.mkdir(parents=True, exist_ok=True)
        photo.save(folder / "val" / name)
    for turn, tags in exif.items():
        picture(36, 60, 20 + turn).save(folder / "val" / "a" / f"turned_{turn}.jpg", exif=tags)
    for number in range(4):
        for name in ("train/a", "train/b", "test/a", "test/b"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture(30, 40, 100 + number).save(folder / name / f"{number}.png")


@dataclass(frozen=True)
class Road:
    """An export, the files of the validation split, and what nas's own validation makes of them."""

    export: Path
    photos: list[Path]
    stored: torch.Tensor
    inputs: torch.Tensor
    logits: torch.Tensor
    level: float

    @property
    def plain(self) -> list[Path]:
        """Those whose pixels are as they are stored: no orientation, no transparency, RGB."""
        names = ("small.png", "large.jpg", "landscape.jpg", "portrait.png", "as_stored.png")
        return [photo for photo in self.photos if photo.name in names]

    def rows(self, photos: list[Path]) -> list[int]:
        return [self.photos.index(photo) for photo in photos]


@pytest.fixture(scope="module", params=[3, 1], ids=["RGB", "grey"])
def road(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Road:
    """An untrained network of inputs of 16 pixels, of a run whose images have 24."""
    folder = tmp_path_factory.mktemp("road")
    write_photos(folder / "photos")
    (folder / "space.yaml").write_text(SPACE.format(channels=request.param))
    space = load_space(folder / "space.yaml")
    data = load_data(folder / "photos", channels=request.param, size=STORED)
    values = space.sample(random.Random(0)) | {"input_size": INPUT}
    architecture = space.architecture(values).canonical
    assert (architecture.input_size, data.image_size) == (INPUT, (STORED, STORED))
    network = build(architecture, 2, seed=3).eval()
    provenance = Provenance(
        created=0.0, command="nas search", versions={}, host="here", hardware="test", cpu_cores=2, git_commit=None,
        data_fingerprint=data.fingerprint(), classes=data.classes, train_images=8, validation_images=17,
        mean=data.mean, std=data.std, image_size=data.image_size,
    )  # fmt: skip
    run = RunDirectory.create(folder / "run", SearchSettings(space=space, data=str(folder / "photos")), provenance)
    evaluation = Evaluation(Outcome.DONE, history=(EpochMetrics(1, 1.0, 1.0, 0.5, {"accuracy": 0.5}, 1.0, 1.0),))
    record = TrialRecord(
        0, architecture.digest, str(architecture), architecture, values, evaluation, {"accuracy": 0.5, "latency": 1.0}
    )
    run.append(record)
    run.save_weights(record.digest, weights_content(network.state_dict()))
    export = export_candidate(run, record, folder / "export", ExportOptions(FORMATS, measure=False))
    stored = torch.from_numpy(data.validation.take(np.arange(len(data.validation))))
    inputs = DeviceData(data, "cpu").prepare(stored, INPUT)
    with torch.inference_mode():
        logits = network(inputs)
    photos = sorted((folder / "photos" / "val" / "a").iterdir()) + sorted((folder / "photos" / "val" / "b").iterdir())
    assert len(photos) == len(stored)
    return Road(export, photos, stored, inputs, logits, 1 / 255 / min(data.std))


def fresh(*arguments: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.subprocess
@pytest.mark.slow
def test_whatever_is_given_to_preprocess_becomes_what_validation_reads(road: Road, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(road.export, tmp_path / "elsewhere")
    torch.save(road.stored, elsewhere / "stored.pt")
    fresh("-c", _FRESH, json.dumps([[*map(str, road.photos)], [*map(str, road.plain)]]), cwd=elsewhere)
    all_of_them, some, logits = torch.load(elsewhere / "found.pt", weights_only=True)
    assert len(logits) == len(all_of_them) + len(some) == 9
    for name, images in all_of_them.items():
        assert (images - road.inputs).abs().max() <= road.level, name
        torch.testing.assert_close(logits[name], road.logits, rtol=1e-4, atol=1e-4, msg=name)
    rows = road.rows(road.plain)
    for name, images in some.items():
        assert (images - road.inputs[rows]).abs().max() <= road.level, name
        torch.testing.assert_close(logits[name], road.logits[rows], rtol=1e-4, atol=1e-4, msg=name)
    assert len({tuple(row) for row in road.logits.mul(1e3).round().tolist()}) == len(
        road.photos
    )  # so that this says something


@pytest.mark.subprocess
@pytest.mark.slow
def test_predict_gives_the_probabilities_of_validation(road: Road) -> None:
    out = fresh("-B", str(road.export / "predict.py"), "--top", "2", *map(str, road.photos), cwd=road.export.parent)
    for line, photo, row in zip(out.splitlines(), road.photos, road.logits.softmax(1), strict=True):
        assert line.startswith(f"{photo}: ")
        found = [float(share) for share in re.findall(r"(\d+\.\d\d)%", line)]
        assert found == pytest.approx((100 * row).sort(descending=True).values.tolist(), abs=0.02)


@pytest.mark.subprocess
@pytest.mark.slow
def test_the_examples_of_card_and_source_give_the_logits_of_validation(road: Road, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(road.export, tmp_path / "elsewhere")
    photo = next(photo for photo in road.photos if photo.name == "turned_6.jpg")
    shutil.copy(photo, elsewhere / "photo.jpg")
    card = (elsewhere / "README.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```$", card, flags=re.MULTILINE | re.DOTALL)
    assert len(examples) == 2 + len(FORMATS)
    used = re.findall(r"^    (.*)$", (elsewhere / "model.py").read_text().split('"""')[1], flags=re.MULTILINE)
    examples.append("\n".join(used))
    (elsewhere / "examples.json").write_text(json.dumps(examples))
    script = (
        "import json, sys, torch\nsys.modules['nas'] = None\nfound = []\n"
        "for code in json.load(open('examples.json')):\n    names = {}\n    exec(code, names)\n"
        "    found.append(torch.as_tensor(names['logits']).tolist())\nprint(json.dumps(found))"
    )
    expected = road.logits[road.rows([photo])]
    for logits in json.loads(fresh("-c", script, cwd=elsewhere).splitlines()[-1]):
        torch.testing.assert_close(torch.tensor(logits), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.subprocess
@pytest.mark.slow
def test_the_metadata_of_onnx_are_enough_to_prepare_a_file(road: Road) -> None:
    """By another hand, from the metadata alone, with Pillow's and torch's own functions."""
    import onnx
    import onnxruntime

    props = {prop.key: prop.value for prop in onnx.load(road.export / "model.onnx").metadata_props}
    steps = json.loads(props["preprocessing"])
    assert steps == json.loads((road.export / "model.json").read_text())["preprocessing"]
    session = onnxruntime.InferenceSession(str(road.export / "model.onnx"), providers=["CPUExecutionProvider"])
    (height, width), mode = steps["image_size"], {"RGB": "RGB", "grey": "L"}[steps["colour"]]
    assert "EXIF" in steps["orientation"]
    assert (steps["layout"], steps["scale"]) == ("NCHW", "uint8 / 255")
    for photo, inputs, logits in zip(road.photos, road.inputs, road.logits, strict=True):
        image = ImageOps.exif_transpose(Image.open(photo))
        if image.mode.startswith("I"):
            continue  # Pillow's own conversion of 16-bit images clips
        if image.has_transparency_data:
            white = Image.new("RGBA", image.size, (*steps["background"], 255))
            image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        image = image.convert(mode)
        scale = max(height / image.height, width / image.width)
        image = image.resize(
            (max(width, round(image.width * scale)), max(height, round(image.height * scale))), Image.Resampling.BICUBIC
        )
        left, top = (image.width - width) // 2, (image.height - height) // 2
        pixels = np.asarray(image.crop((left, top, left + width, top + height))).reshape(height, width, -1)
        x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        assert steps["resize"] == "bilinear, antialiased"
        x = torch.nn.functional.interpolate(x, steps["input_shape"][1:], mode="bilinear", antialias=True)
        mean, std = (torch.tensor(steps[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        x = (x - mean) / std
        assert (x[0] - inputs).abs().max() <= road.level, photo.name
        found = torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
        torch.testing.assert_close(found[0], logits, rtol=0.05, atol=0.05, msg=photo.name)


REFUSED = {
    "preprocess(np.zeros((20, 20, 3), np.float32))": "of float32",
    "preprocess(torch.zeros(1, 3, 24, 24))": "of float32",
    "preprocess([np.zeros((20, 20, 7), np.uint8)])": "the image's shape",
    "preprocess(3.5)": "the image is float",
    "preprocess('figure.png')": "cannot identify image file",  # an EPS file, for which Pillow would start Ghostscript
}


@pytest.mark.subprocess
@pytest.mark.slow
def test_what_preprocess_cannot_take_is_said(road: Road, tmp_path: Path) -> None:
    (tmp_path / "figure.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n"
    )
    script = (
        f"import sys\nsys.path.insert(0, {str(road.export)!r})\nsys.dont_write_bytecode = True\nimport numpy as np, torch\n"
        f"from model import preprocess\nfor code in {list(REFUSED)}:\n    try:\n        eval(code)\n"
        "    except Exception as error:\n        print(error)"
    )
    told = fresh("-c", script, cwd=tmp_path).splitlines()
    for line, says in zip(told, REFUSED.values(), strict=True):
        assert says in line


@pytest.mark.subprocess
@pytest.mark.slow
def test_a_network_alone_needs_neither_numpy_nor_pillow(road: Road, tmp_path: Path) -> None:
    torch.save(road.stored[:2], tmp_path / "stored.pt")
    script = (
        f"import sys\nsys.path.insert(0, {str(road.export)!r})\nsys.dont_write_bytecode = True\nimport torch\n"
        "sys.modules['numpy'] = sys.modules['PIL'] = None\nfrom model import load, preprocess\n"
        "print(load()(preprocess(torch.load('stored.pt', weights_only=True))).tolist())"
    )
    found = torch.tensor(json.loads(fresh("-c", script, cwd=tmp_path)))
    torch.testing.assert_close(found, road.logits[:2], rtol=1e-4, atol=1e-4)
