"""The exported folder, moved elsewhere and loaded in a fresh interpreter where nas cannot be imported."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import RunFactory

import nas.export
from nas.backbones import load_backbone
from nas.errors import InputError
from nas.export import export_candidate
from nas.model import build
from nas.record import Evaluation, Outcome, TrialRecord
from nas.run import RunDirectory, weights_content
from nas.settings import SearchSettings
from nas.space import SearchSpace
from nas.space_file import load_space
from nas.weights import inherit

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
        network(torch.randn(8, architecture.input_channels, side, side, generator=generator))
    run.save_weights(architecture.digest, weights_content(network.state_dict()))
    record = TrialRecord(
        number=seed,
        digest=architecture.digest,
        text=str(architecture),
        architecture=architecture,
        parameters=values,
        evaluation=Evaluation(Outcome.DONE),
        objectives={"accuracy": 0.9, "latency": 1.0},
    )
    run.append(record)
    return record, network.eval()


def spaces() -> list[SearchSpace]:
    """The shipped ones, and the digits space with the other padding and activation."""
    digits = load_space("digits")
    odd = digits.model_copy(update={"padding": "tf_same", "activation": "relu", "norm_eps": 1e-3, "name": "odd"})
    return [digits, SearchSpace.model_validate(odd.model_dump(by_alias=True)), load_space("lite0")]


@pytest.mark.parametrize("space", spaces(), ids=lambda space: space.name)
def test_exported_folder_works_elsewhere_without_nas(make_run: RunFactory, tmp_path: Path, space: SearchSpace) -> None:
    run = make_run(SearchSettings(space=space, data="digits"))
    channels = space.input.channels
    run.content = replace(
        run.content, provenance=replace(run.provenance, mean=(0.4,) * channels, std=(0.2,) * channels)
    )
    record, network = trained_record(run, 7)
    export_candidate(run, record, tmp_path / "out")
    elsewhere = tmp_path / "else" / "where"
    shutil.move(tmp_path / "out", elsewhere)
    side = record.architecture.input_size
    images = torch.randint(
        0, 256, (3, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    torch.save(images, elsewhere / "images.pt")
    fresh = subprocess.run(
        [sys.executable, "-c", _FRESH], cwd=elsewhere, capture_output=True, text=True, timeout=120, check=False
    )
    assert fresh.returncode == 0, fresh.stderr
    said = json.loads(fresh.stdout)
    assert said == {"extra": ["model"], "training": False, "classes": list("0123456789")}
    with torch.inference_mode():
        expected = network((images.float() / 255 - 0.4) / 0.2)
    torch.testing.assert_close(torch.load(elsewhere / "logits.pt", weights_only=True), expected, rtol=1e-4, atol=1e-5)

    from safetensors.torch import load_file

    state, safe = torch.load(elsewhere / "model.pt", weights_only=True), load_file(elsewhere / "model.safetensors")
    assert list(state) == list(network.state_dict())
    assert all(torch.equal(state[name], safe[name]) for name in state)
    card = json.loads((elsewhere / "model.json").read_text())
    assert card["digest"] == record.digest
    assert card["preprocessing"]["input_shape"] == [channels, side, side]
    assert card["measured"]["objectives"] == record.objectives


def test_an_exported_folder_is_a_backbone_for_the_next_search(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    record, network = trained_record(run, 8)
    out = export_candidate(run, record, tmp_path / "out")
    backbone = load_backbone(str(out))
    assert (backbone.mean, backbone.std) == ((0.5,), (0.25,))
    inheritance = inherit(backbone, record.architecture, 10)
    assert inheritance.fresh == ()
    counted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("batches_tracked")}
    assert all(torch.equal(inheritance.state[name], tensor) for name, tensor in counted.items())
    (out / "model.json").write_text("{}")
    load_backbone.cache_clear()
    with pytest.raises(InputError, match="not a folder that nas export made"):
        load_backbone(str(out))


def test_source_is_of_exactly_this_network_and_imports_torch_alone(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    record, _ = trained_record(run, 3)
    source = (export_candidate(run, record, tmp_path / "out") / "model.py").read_text()
    modules = {line.split()[1].partition(".")[0] for line in source.splitlines() if re.match(r"(import|from) ", line)}
    assert modules == {"__future__", "pathlib", "torch"}
    blocks = source[source.index("def build()") :]
    assert blocks.count("InvertedResidual(") == len(record.architecture.layers)
    assert record.digest in source
    assert record.text in source
    compile(source, "model.py", "exec")


def test_class_names_and_other_text_cannot_become_code(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    nasty = ('"]; import os #', "'''", '"""', "\\", "ünï\n", "{x}", *"6789")
    run.content = replace(run.content, provenance=replace(run.provenance, classes=nasty))
    record, _ = trained_record(run, 4)
    out = export_candidate(run, record, tmp_path / "out")
    fresh = subprocess.run(
        [sys.executable, "-c", "import json, model; print(json.dumps(model.CLASSES))"],
        cwd=out, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert tuple(json.loads(fresh.stdout)) == nasty


def test_an_export_that_differs_leaves_nothing_behind(
    make_run: RunFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    record, _ = trained_record(run, 5)
    original = nas.export.model_source
    monkeypatch.setattr(
        nas.export, "model_source", lambda *a: original(*a).replace("x.mean((2, 3))", "x.mean((2, 3)) + 1")
    )
    with pytest.raises(RuntimeError, match="differ"):
        export_candidate(run, record, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_nothing_is_overwritten(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    record, _ = trained_record(run, 6)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_candidate(run, record, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"
    with pytest.raises(InputError, match="no such folder"):
        export_candidate(run, record, tmp_path / "no" / "out")
