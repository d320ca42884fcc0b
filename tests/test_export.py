"""The exported folder, moved elsewhere and loaded in a fresh interpreter where nas cannot be imported."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import RunFactory
from mobile import mobile_space
from PIL import Image

import nas.export.folder
import nas.export.source
import nas.latency.runtimes.onnxruntime
from nas.cli.app import main
from nas.common.errors import ExportError, InputError
from nas.common.files import weights_content
from nas.common.jsonl import json_line
from nas.data.image_decoding import decode_into
from nas.data.image_files import list_files
from nas.data.image_layout import find_layout
from nas.export.check import outputs as outputs_of
from nas.export.folder import ExportOptions, export_all, export_candidate
from nas.latency.protocol import LatencyProtocol
from nas.models.backbones import load_backbone
from nas.models.networks import build
from nas.models.weights import licence_of
from nas.runs.record import Confirmation, Evaluation, Outcome, TrainingRecord, TrialRecord
from nas.runs.run_file import Provenance
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import RunDirectory
from nas.spaces.mobile.architecture import Architecture
from nas.spaces.mobile.space import SearchSpace
from nas.training.device_data import resize
from nas.training.history import EpochMetrics
from nas.training.recipe import Recipe
from nas.training.supernet_file import SupernetFile, write_file
from nas.views.report.findings import find
from nas.views.report.html import report_page
from nas.workflows.measurable import named

FORMATS = ("pt2", "onnx", "torchscript")
PLAIN = ExportOptions(measure=False)
NASTY = (
    *('"]; import os #', "'''", '"""', "\\", "ünï\n```\n# no title", "{x}"),
    *("<script>alert(1)</script>", "`a` | b", "\x1b[31mred", "9"),
)
MEAN, STD = 0.4, 0.2
QUICK = LatencyProtocol(warmup_s=0.01, block_ms=0.1, min_blocks=5, max_s=0.05, attempts=1, batch_size=2)
PROVENANCE = Provenance(
    created=time.time(), command="nas search", versions={"python": "3"}, host="here", hardware="test", cpu_cores=2,
    git_commit=None, data_fingerprint="0" * 16, classes=NASTY, train_images=100, validation_images=400, mean=(MEAN,),
    std=(STD,), image_size=(12, 12),
)  # fmt: skip

_FRESH = """
import builtins, json, sys
real = builtins.__import__
def guarded(name, *rest, **kwargs):
    root = name.partition(".")[0]
    if root == "nas":
        raise ImportError("nas is not here")
    return real(name, *rest, **kwargs)
builtins.__import__ = guarded
before = set(sys.modules)
import torch
with_torch = set(sys.modules)
import model
extra = {name.partition(".")[0] for name in set(sys.modules) - with_torch} - set(sys.stdlib_module_names)
network = model.load()
images = torch.load("images.pt", weights_only=True)
torch.save(network(model.preprocess(images)), "logits.pt")
print(json.dumps({"extra": sorted(extra), "training": network.training, "classes": model.CLASSES}))
"""


def trained_record(run: RunDirectory, seed: int) -> tuple[TrialRecord, torch.nn.Module]:
    """A candidate as a search leaves it: weights and batch norm statistics unlike fresh ones."""
    space = run.settings.space
    values = space.sample(random.Random(seed))
    architecture = space.architecture(values).canonical
    network = build(architecture, len(run.provenance.classes), seed)
    network.train()
    side = architecture.input_size
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        network(torch.randn(8, architecture.input_shape[0], side, side, generator=generator))
    run.save_weights(architecture.digest, weights_content(network.state_dict()))
    epoch = EpochMetrics(1, 1.0, 1.0, 0.9, {"accuracy": 0.9}, 1.0, 1.0)
    record = TrialRecord(
        number=seed,
        digest=architecture.digest,
        text=str(architecture),
        architecture=architecture,
        parameters=values,
        evaluation=Evaluation(Outcome.DONE, history=(epoch,)),
        objectives={"accuracy": 0.9, "latency": 1.0},
    )
    run.append(record)
    return record, network.eval()


def uint8_images(count: int, channels: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def prepared(images: torch.Tensor, side: int, mean: float, std: float) -> torch.Tensor:
    """What a training makes of images (`DeviceData.prepare`)."""
    return (resize(images.float() / 255, side) - mean) / std


@dataclass(frozen=True)
class Exported:
    run: RunDirectory
    record: TrialRecord
    network: torch.nn.Module
    folder: Path

    @property
    def card(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "model.json").read_text()))


def exported_from(path: Path, space: SearchSpace, seed: int, options: ExportOptions) -> Exported:
    settings = SearchSettings(space=space, data="digits <b>`x`</b>", evaluation=EvaluationSettings(protocol=QUICK))
    run = RunDirectory.create(path / "run", settings, PROVENANCE)
    record, network = trained_record(run, seed)
    again = replace(record.evaluation, history=(replace(record.evaluation.history[0], score=0.8),))
    run.append_confirmation(Confirmation(record.digest, record.number, 5, 2, again))
    return Exported(run, record, network, export_candidate(run, record, path / "out", options))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """All formats as trained, measured; class names that try everything."""
    return exported_from(tmp_path_factory.mktemp("plain"), mobile_space("digits"), 7, ExportOptions(FORMATS))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """All formats folded and in float16, of a space with the other padding and activation."""
    digits = mobile_space("digits")
    odd = digits.model_copy(update={"padding": "tf_same", "activation": "relu", "norm_eps": 1e-3, "name": "odd"})
    space = SearchSpace.model_validate(odd.model_dump(by_alias=True))
    options = ExportOptions(FORMATS, fold_bn=True, half=True, measure=False)
    return exported_from(tmp_path_factory.mktemp("small"), space, 7, options)


def fresh(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env=environment,
    )


@pytest.fixture
def checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports are checked in this process: a fresh one, which other tests have, takes seconds to import torch."""

    def found(folder: Path, formats: Sequence[str], batches: Sequence[torch.Tensor]) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            try:
                return {form: outputs_of(folder, form, list(batches)) for form in formats}
            finally:
                sys.modules.pop("model", None)

    monkeypatch.setattr(nas.export.folder, "_fresh", found)


# ---------------------------------------------------------------- source and weights


@pytest.mark.subprocess
@pytest.mark.slow
def test_exported_folder_works_elsewhere_without_nas(exported: Exported, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(exported.folder, tmp_path / "else" / "where")
    images = uint8_images(3, 1, 12)
    torch.save(images, elsewhere / "images.pt")
    done = fresh("-c", _FRESH, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"extra": ["model"], "training": False, "classes": list(NASTY)}
    with torch.inference_mode():
        expected = exported.network(prepared(images, 8, MEAN, STD))
    torch.testing.assert_close(torch.load(elsewhere / "logits.pt", weights_only=True), expected, rtol=1e-4, atol=1e-5)

    from safetensors.torch import load_file

    state, safe = torch.load(elsewhere / "model.pt", weights_only=True), load_file(elsewhere / "model.safetensors")
    assert list(state) == list(exported.network.state_dict())
    assert all(torch.equal(state[name], safe[name]) for name in state)
    card = exported.card
    assert card["digest"] == exported.record.digest
    assert card["preprocessing"]["input_shape"] == [1, 8, 8]
    assert card["preprocessing"]["image_size"] == [12, 12]
    assert card["measured"]["objectives"] == exported.record.objectives


@pytest.mark.usefixtures("checked_here")
def test_three_channels_and_the_weights_of_a_full_training(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run(SearchSettings(space=mobile_space("lite0"), data="cifar10"))
    run.content = replace(run.content, provenance=replace(run.provenance, mean=(0.4,) * 3, std=(0.2,) * 3))
    record, _ = trained_record(run, 7)
    run.weights_path(record.digest).unlink()
    with pytest.raises(InputError, match="were not kept"):
        export_candidate(run, record, tmp_path / "out", PLAIN)
    other = build(record.architecture, 10, seed=99).eval()
    training = TrainingRecord(
        record.number, record.digest, Recipe(epochs=3), 5, "init", False, "a" * 12, Evaluation(Outcome.DONE), (1.0,) * 3
    )
    (run.path / "trained").mkdir()
    run.save_trained(training, weights_content(other.state_dict()))
    run.append_training(training)
    with pytest.raises(InputError, match="were not kept"):
        export_candidate(run, record, tmp_path / "out", replace(PLAIN, weights="search"))
    out = export_candidate(run, record, tmp_path / "out", PLAIN)
    side = record.architecture.input_size
    images = uint8_images(2, 3, 32)
    with named(str(out), None) as found, torch.inference_mode():
        logits = found.module(sys.modules[found.module.__module__].preprocess(images))
        torch.testing.assert_close(logits, other(prepared(images, side, 0.4, 0.2)), rtol=1e-4, atol=1e-4)
    card = json.loads((out / "model.json").read_text())
    assert card["export"]["weights"] == "full training"
    assert (card["training"]["seed"], card["training"]["epochs"]) == (5, 3)
    assert card["preprocessing"]["image_size"] == [32, 32]
    assert "those of a full training, 3 epochs from the inherited weights, seed 5" in (out / "README.md").read_text()


@pytest.mark.subprocess
@pytest.mark.slow
def test_an_exported_folder_is_a_backbone_for_the_next_search(
    exported: Exported, small: Exported, tmp_path: Path
) -> None:
    out = shutil.copytree(exported.folder, tmp_path / "out")
    backbone = load_backbone(str(out))
    assert (backbone.mean, backbone.std) == ((MEAN,), (STD,))
    inheritance = backbone.inherit(exported.record.architecture, 10)
    assert inheritance.fresh == ()
    state = exported.network.state_dict()
    counted = {name: tensor for name, tensor in state.items() if not name.endswith("batches_tracked")}
    assert all(torch.equal(inheritance.state[name], tensor) for name, tensor in counted.items())
    assert "random weights" in licence_of(str(out))
    (out / "model.json").write_text("{}")
    with pytest.raises(InputError, match="not a folder that nas export made"):
        load_backbone(str(out))
    with pytest.raises(InputError, match="export without fold_bn"):
        load_backbone(str(small.folder))


@pytest.mark.subprocess
@pytest.mark.slow
def test_source_is_of_exactly_this_network_and_imports_torch_alone(exported: Exported) -> None:
    source = (exported.folder / "model.py").read_text()
    modules = {line.split()[1].partition(".")[0] for line in source.splitlines() if re.match(r"(import|from) ", line)}
    assert modules == {"__future__", "pathlib", "typing", "torch"}
    blocks = source[source.index("def build()") :]
    assert isinstance(exported.record.architecture, Architecture)
    assert blocks.count("InvertedResidual(") == len(exported.record.architecture.layers)
    assert exported.record.digest in source
    assert exported.record.text in source


# ---------------------------------------------------------------- further formats


def outputs(folder: Path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        return {
            "pt2": torch.export.load(folder / "model.pt2").module()(images),
            "onnx": torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0]),
            "torchscript": torch.jit.load(folder / "model.torchscript")(images),
        }


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 5])
def test_every_format_gives_the_logits_of_the_searched_network_for_any_batch(exported: Exported, size: int) -> None:
    images = prepared(uint8_images(size, 1, 8), 8, MEAN, STD)
    with torch.inference_mode():
        expected = exported.network(images)
    for logits in outputs(exported.folder, images).values():
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    checks = exported.card["export"]["checks"]
    assert set(checks["largest_difference"]) == {"source", "safetensors", *FORMATS}
    assert checks["tolerance"] == 1e-4


@pytest.mark.subprocess
@pytest.mark.slow
def test_classes_and_preprocessing_are_inside_every_format(exported: Exported) -> None:
    import onnx

    pt2, script = dict.fromkeys(("classes", "preprocessing", "digest"), ""), {"classes": "", "preprocessing": ""}
    torch.export.load(exported.folder / "model.pt2", extra_files=pt2)
    torch.jit.load(exported.folder / "model.torchscript", _extra_files=script)
    props = {prop.key: prop.value for prop in onnx.load(exported.folder / "model.onnx").metadata_props}
    assert props["digest"] == pt2["digest"] == exported.record.digest
    for texts in (pt2, script, props):
        assert json.loads(texts["classes"]) == list(NASTY)
        assert json.loads(texts["preprocessing"]) == exported.card["preprocessing"]


@pytest.mark.subprocess
@pytest.mark.slow
def test_the_latency_of_every_format_is_in_model_json_by_the_runs_protocol(exported: Exported) -> None:
    latencies = exported.card["latency"]
    assert set(latencies) == {"source", *FORMATS}
    for form, latency in latencies.items():
        assert 0 < latency["p10_ms"] <= latency["median_ms"] <= latency["p90_ms"]
        assert isinstance(latency["noisy"], bool)
        assert isinstance(latency["contended"], bool)
        protocol = latency["protocol"]
        assert (protocol["device"], protocol["batch_size"], protocol["threads"]) == ("cpu", 2, 1)
        assert protocol["mode"] == ("onnxruntime" if form == "onnx" else "eager")


@pytest.mark.subprocess
@pytest.mark.slow
def test_folded_and_in_float16(small: Exported) -> None:
    source = (small.folder / "model.py").read_text()
    assert not re.search(r"\beps=(?!eps\b)", source)  # no call says one
    assert "DTYPE = torch.float16" in source
    state = torch.load(small.folder / "model.pt", weights_only=True)
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert not [name for name in state if "norm" in name]
    images = prepared(uint8_images(3, 1, 8), 8, MEAN, STD)
    with torch.inference_mode():
        expected = small.network(images)
        with named(str(small.folder), None) as found:
            assert not [part for part in found.module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
            found_all = outputs(small.folder, images.half()) | {"source": found.module(images.half())}
    for logits in found_all.values():
        assert logits.dtype == torch.float16
        assert (logits.float() - expected).abs().max() < 2e-2 * expected.abs().max()
    assert small.card["export"]["dtype"] == "float16"
    assert small.card["export"]["checks"]["tolerance"] == 2e-2
    assert small.card["latency"] == {}


# ---------------------------------------------------------------- what fails


@pytest.mark.subprocess
def test_an_export_that_differs_leaves_nothing_behind(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    record, _ = trained_record(run, 5)
    original = nas.export.source.model_source
    with monkeypatch.context() as patch:
        patch.setattr(
            nas.export.folder, "model_source", lambda *a: original(*a).replace("x.mean((2, 3))", "x.mean((2, 3)) + 1")
        )
        with pytest.raises(ExportError, match="the exported source does not compute what the searched network does"):
            export_candidate(run, record, tmp_path / "out", PLAIN)
    trace = torch.jit.trace
    monkeypatch.setattr(torch.jit, "trace", lambda net, x: trace(torch.nn.Sequential(net, torch.nn.Softmax(1)), x))
    with pytest.raises(SystemExit) as end:
        main(["export", str(run.path), "--format", "torchscript", "--no-measure", "--to", str(tmp_path / "out")])
    assert end.value.code == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(
    ("gives", "says"),
    [
        (lambda good: [good[0], good[1] * torch.nan], "does not compute what the searched network does"),
        (lambda good: [good[0], good[1][:2]], r"gives \(2, 10\) where \(3, 10\) is right"),
        (lambda good: "RuntimeError: not implemented for 'Half'", "does not run in a fresh process: RuntimeError"),
    ],
)
def test_what_the_fresh_process_finds_is_judged(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gives: Any, says: str
) -> None:
    run = make_run()
    record, network = trained_record(run, 5)

    def found(folder: Path, formats: Sequence[str], batches: Sequence[torch.Tensor]) -> dict[str, Any]:
        good = [network(images.float()) for images in batches]
        return {"source": gives(good)}

    monkeypatch.setattr(nas.export.folder, "_fresh", found)
    with pytest.raises(ExportError, match=says):
        export_candidate(run, record, tmp_path / "out", PLAIN)
    if "Half" in says:
        with pytest.raises(ExportError, match=r"source in float16 cannot be run on this CPU: .* leave out half"):
            export_candidate(run, record, tmp_path / "out", ExportOptions(half=True, measure=False))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_what_cannot_be_had_is_said_before_anything_is_written(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    record, _ = trained_record(run, 6)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_candidate(run, record, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(InputError, match="no such folder"):
        export_candidate(run, record, tmp_path / "no" / "out")
    with pytest.raises(InputError, match="formats tflite: use pt2, onnx, torchscript"):
        export_candidate(run, record, tmp_path / "new", ExportOptions(("tflite",)))
    with monkeypatch.context() as patch:
        patch.setattr(nas.latency.runtimes.onnxruntime, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"formats onnx needs onnx, .*pip install 'pareto-nas\[onnx\]'"):
            export_candidate(run, record, tmp_path / "new", ExportOptions(("onnx",)))
    with monkeypatch.context() as patch:
        patch.delattr(torch.jit, "trace")
        with pytest.raises(InputError, match="has no TorchScript any more: use pt2"):
            export_candidate(run, record, tmp_path / "new", ExportOptions(("torchscript",)))
    evaluation = EvaluationSettings(protocol=LatencyProtocol(device="cuda:99"))
    elsewhere = make_run(replace(run.settings, evaluation=evaluation), name="gpu")
    with pytest.raises(InputError, match="cuda:99, and that is not here: export with measure=False"):
        export_candidate(elsewhere, record, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- for people


@pytest.mark.subprocess
@pytest.mark.slow
def test_predict_classifies_files_as_training_read_them(exported: Exported, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3)).astype(np.uint8)
    wide = Image.fromarray(pixels).resize((33, 14))
    for name, image in {"a/colour.jpg": wide, "a/grey.png": wide.convert("L"), "b/deep.png": None}.items():
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        deep = Image.fromarray(pixels[:12, :12, 0].astype(np.uint16) * 257)
        (image or deep).save(tmp_path / "images" / name)
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned
    Image.fromarray(pixels).resize((14, 33)).save(tmp_path / "images" / "a" / "turned.jpg", exif=exif)
    icon = np.zeros((20, 20, 4), np.uint8)
    icon[5:15, 5:15, 3] = 255  # black, on nothing
    Image.fromarray(icon).save(tmp_path / "images" / "b" / "icon.png")
    (tmp_path / "images" / "b" / "broken.png").write_bytes(b"no image")
    listing = list_files(tmp_path / "images")
    layout = find_layout(tmp_path / "images", listing)
    layout.parts["train"].remove(("b/broken.png", 1))
    trained_on = np.zeros((5, 1, 12, 12), dtype=np.uint8)
    decode_into(tmp_path / "images", layout, {"train": trained_on})
    assert trained_on[-1].max() == 255  # white behind the icon
    with torch.inference_mode():
        expected = exported.network(prepared(torch.from_numpy(trained_on), 8, MEAN, STD)).softmax(1)
    names = [file for file, _ in layout.parts["train"]]
    script = str(exported.folder / "predict.py")
    done = fresh("-B", script, "b/broken.png", *names, "gone\n.png", "--top", "3", cwd=tmp_path / "images")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "b/broken.png: cannot be read: not an image of a known format",
        "'gone\\n.png': cannot be read: No such file or directory",
    ]
    lines = done.stdout.splitlines()
    assert len(lines) == len(names)
    for line, name, row in zip(lines, names, expected, strict=True):
        best = row.topk(3)
        shown = [NASTY[i] if NASTY[i].isprintable() else ascii(NASTY[i]) for i in best.indices.tolist()]
        assert line.startswith(f"{name}: {shown[0]} ")
        found = [float(percent) for percent in re.findall(r"(\d+\.\d\d)%", line)]
        assert found == pytest.approx([100 * p for p in best.values.tolist()], abs=0.02)
        assert all(text in line for text in shown)


@pytest.mark.subprocess
@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk"])
def test_predict_prints_names_that_the_encoding_lacks(
    exported: Exported, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not "".join(NASTY).isascii()
    monkeypatch.setenv("PYTHONIOENCODING", f"{encoding}:strict")
    Image.new("L", (20, 20), 90).save(tmp_path / "bär 🐻.png")
    names = ("bär 🐻.png", "Öl→.png")
    done = fresh("-B", str(exported.folder / "predict.py"), *names, "--top", str(len(NASTY)), cwd=tmp_path)
    assert (done.returncode, done.stdout.count("\n"), done.stderr.count("\n")) == (1, 1, 1), done.stderr
    assert "cannot be read: No such file or directory" in done.stderr


@pytest.mark.subprocess
@pytest.mark.slow
def test_the_card_tells_where_it_comes_from_and_shows_hostile_text_as_text(exported: Exported) -> None:
    card = (exported.folder / "README.md").read_text()
    for said in (
        exported.record.text,
        "90.00 ± 1.50 %",
        "Trained again from another seed, for 2 epochs: 80.00 ± 2.00 %",
        "training began from random weights, so nothing was inherited",
        "| onnx | ",
        "batch 2 · onnxruntime · float32",
        'torch.export.load("model.pt2")',
    ):
        assert said in card
    assert json.dumps(list(NASTY)) in card.splitlines()
    fences = [line for line in card.splitlines() if line.startswith("```")]
    assert fences[0::2] == ["```json", *["```python"] * 5]
    assert set(fences[1::2]) == {"```"}
    outside = re.sub(r"^```.*?^```$", "", card, flags=re.MULTILINE | re.DOTALL)
    assert "`` digits <b>`x`</b> ``" in outside
    assert "<script>" not in outside
    assert "no title" not in outside


def test_licences_of_inherited_weights_are_known() -> None:
    assert "Apache-2.0" in licence_of("efficientnet_lite0")
    assert "BSD-3-Clause" in licence_of("mobilenet_v2")
    assert "BSD-3-Clause" in licence_of("imagenet")
    assert "not known here any more" in licence_of("/gone")
    assert "not known here any more" in licence_of("supernet:/gone")


@pytest.mark.usefixtures("checked_here")
@pytest.mark.parametrize(("data_licence", "said"), [("CC-BY-4.0 (LICENSE)", "CC-BY-4.0"), (None, "not known")])
def test_licences_are_in_card_record_and_report_and_pass_from_folder_to_folder(
    make_run: RunFactory, tmp_path: Path, data_licence: str | None, said: str
) -> None:
    run = make_run()
    noted = replace(run.provenance, init_licence=licence_of("efficientnet_lite0"), data_licence=data_licence)
    run.content = replace(run.content, provenance=noted)
    record, _ = trained_record(run, 7)
    first = export_candidate(run, record, tmp_path / "first", PLAIN)
    card = (first / "README.md").read_text()
    assert "Inherited weights: Inherited from efficientnet\\_lite0" in card
    assert f"- Data, `digits`: {said}" in card
    page = report_page(find(run))
    assert "ML Illustrated" in page
    assert f"<dt>Licence of the data</dt><dd>{said}" in page
    # A supernet that began with that folder, and what a run would note that starts from it.
    began = SupernetFile(
        space=mobile_space("digits"), data="letters", data_fingerprint="0" * 16, split_seed=0, classes=("a", "b"), mean=(0.5,),
        std=(0.2,), recipe=Recipe(), device="cpu", init=str(first), init_licence=licence_of(str(first)),
    )  # fmt: skip
    (tmp_path / "supernet").mkdir()
    write_file(tmp_path / "supernet", began)
    shutil.rmtree(first)
    found = licence_of(f"supernet:{tmp_path / 'supernet'}")
    assert "trained on letters (licence of the data: not known)" in found
    assert f"trained on digits (licence of the data: {said}" in found
    assert "Apache-2.0" in found


@pytest.mark.usefixtures("checked_here")
def test_what_a_training_from_random_weights_exports_inherited_nothing(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    noted = replace(run.provenance, init_licence=licence_of("mobilenet_v2"))
    run.content = replace(run.content, provenance=noted)
    record, network = trained_record(run, 7)
    training = TrainingRecord(
        record.number,
        record.digest,
        Recipe(epochs=3),
        0,
        "scratch",
        False,
        "a" * 12,
        Evaluation(Outcome.DONE),
        (1.0,) * 3,
    )
    (run.path / "trained").mkdir()
    run.save_trained(training, weights_content(network.state_dict()))
    run.append_training(training)
    of_search = replace(PLAIN, weights="search")
    for name, options, licence in (("full", PLAIN, "nothing was inherited"), ("search", of_search, "BSD-3-Clause")):
        out = export_candidate(run, record, tmp_path / name, options)
        assert licence in json.loads((out / "model.json").read_text())["inherited_weights"]["licence"]
        assert licence in (out / "README.md").read_text()


# ---------------------------------------------------------------- permissions


@pytest.mark.usefixtures("checked_here")
@pytest.mark.parametrize(
    ("umask", "formats"), [(0o022, ()), (0o002, ()), pytest.param(0o077, FORMATS, marks=pytest.mark.slow)]
)
def test_every_file_has_the_permissions_that_the_user_gives_new_files(
    make_run: RunFactory, tmp_path: Path, umask: int, formats: tuple[str, ...]
) -> None:
    run = make_run()
    record, _ = trained_record(run, 7)
    before = os.umask(umask)
    try:
        out = export_candidate(run, record, tmp_path / "one", ExportOptions(formats, measure=False))
        (several,) = export_all(run, [record], tmp_path / "several", PLAIN)
        run.save_weights("again", b"weights")
        run.save_report("page")
    finally:
        os.umask(before)
    folders = [out, several.parent, several]
    files = [*out.iterdir(), *several.iterdir(), run.weights_path("again"), run.report_path]
    assert {oct(path.stat().st_mode & 0o777) for path in folders} == {oct(0o777 & ~umask)}
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {
        path.name: oct(0o666 & ~umask) for path in files
    }


# ---------------------------------------------------------------- command line


@pytest.mark.usefixtures("checked_here")
def test_several_picks_are_exported_side_by_side_or_not_at_all(
    make_run: RunFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    slow, fast = trained_record(run, 1)[0], trained_record(run, 2)[0]
    slow = replace(slow, objectives={"accuracy": 0.9, "latency": 2.0})
    fast = replace(fast, objectives={"accuracy": 0.8, "latency": 1.0})
    (run.path / "trials.jsonl").write_text(f"{json_line(slow)}\n{json_line(fast)}\n")
    common = ["export", str(run.path), "--no-measure", "--to"]

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([*common, *arguments])
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    code, out, err = call(str(tmp_path / "out"), "--pick", "latency<=1.5ms,most-accurate", "--pick", "fastest")
    assert (code, err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {slow.digest, fast.digest}
    for record in (slow, fast):
        assert json.loads((tmp_path / "out" / record.digest / "model.json").read_text())["digest"] == record.digest
        assert (
            f"is in {tmp_path / 'out' / record.digest}, with the weights of the search's proxy training, 1 epoch:"
            in out
        )
    code, _, err = call(str(tmp_path / "out"), "--pick", "fastest")
    assert (code, err) == (2, f"nas: --to {tmp_path / 'out'}: exists already; give another --to\n")
    run.weights_path(slow.digest).unlink()
    code, _, err = call(str(tmp_path / "new"), "--pick", "most-accurate,latency<=1.5ms")
    assert code == 2
    assert "were not kept" in err
    assert "pick one of those" in err
    run.save_weights(slow.digest, weights_content(build(fast.architecture, 10).state_dict()))
    code, _, err = call(str(tmp_path / "new"), "--pick", "most-accurate")
    assert (code, err) == (2, f"nas: the weights of {slow.digest} do not fit its architecture, {slow.text}\n")
    code, _, err = call(str(tmp_path / "new"), "--format", "pt2,tflite")
    assert (code, err) == (2, "nas: --format tflite: use pt2, onnx, torchscript\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]
