"""`nas measure`: what can be named, what is printed, and that nothing is left of the files that are named."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from commands import call
from conftest import RunFactory

import nas.cli.measure as cli_measure
import nas.latency.measuring as latency_module
from nas.common.errors import InputError
from nas.common.files import weights_content
from nas.export.folder import ExportOptions, export_candidate
from nas.latency.protocol import LatencyProtocol, default_protocol
from nas.latency.result import DeviceState, Latency
from nas.latency.telemetry import Watch
from nas.models.networks import build
from nas.runs.record import Evaluation, Outcome, TrialRecord
from nas.spaces.base import Cost
from nas.views.terminal.latency import protocol_lines
from nas.workflows.measurable import named

NETWORK = """
from dataclasses import dataclass

import torch
from torch import nn

from beside import WIDTH


@dataclass
class Sizes:
    width: int = WIDTH


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, Sizes().width, 3)
        print("built")

    def forward(self, x):
        print("called")
        return self.conv(x).mean((2, 3))


class Needy(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()


def make():
    from later import DEPTH

    return nn.Sequential(*[Network() for _ in range(DEPTH)])


def exits():
    raise SystemExit(3)


def text():
    return "resnet18"


ready = nn.Flatten()
NUMBER = 5
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(device: str) -> LatencyProtocol:
        return replace(default_protocol(device), warmup_s=0.01, max_s=0.02, min_blocks=5, attempts=1)

    monkeypatch.setattr(cli_measure, "default_protocol", quick)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    (tmp_path / "later.py").write_text("DEPTH = 1\n")
    path = tmp_path / "mine.py"
    path.write_text(NETWORK)
    return path


def test_the_table_and_the_protocol(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watch, "others", lambda self: None)
    code, out, err = call(capsys, "measure", "squeezenet1_1", "--input", "3x48x64", "--device", "cpu")
    assert code == 0
    rows = [line.split() for line in out.splitlines() if line.strip()]
    assert rows[0][:3] == ["squeezenet1_1", "input", "3x48x64"]
    assert "1.235 M parameters" in out
    assert [row[0] for row in rows[2:4]] == ["1", "8"]
    ms, images = float(rows[3][1]), float(rows[3][3].replace(",", ""))
    assert images == pytest.approx(8e3 / ms, rel=0.01)
    assert float(rows[3][4]) == pytest.approx(ms / 8, rel=0.01)
    assert "value     lower quartile of process time" in out
    for text in ("eager, float32, channels last, batch norm folded, caches hot", "1 thread;", torch.__version__):
        assert text in out
    assert out.count("other processes: unknown") == 2
    assert "temperature not known here" in out
    assert "Warn" not in err


def test_json_is_the_record_and_nothing_else(capfd: pytest.CaptureFixture[str], file: Path) -> None:
    arguments = ["--input", "3x8x8", "--batch-size", "4,1", "--dtype", "bf16", "--no-channels-last", "--device", "cpu"]
    code, out, _ = call(capfd, "measure", f"{file}:Network", *arguments, "--json")
    assert code == 0
    data = json.loads(out)  # what the network prints goes elsewhere
    assert data["label"] == f"{file}:Network"
    assert data["macs"] == 6 * 27 * 36
    assert data["params"] == 6 * 28
    assert [measured["input_shape"] for measured in data["measured"]] == [[4, 3, 8, 8], [1, 3, 8, 8]]
    for measured in data["measured"]:
        assert set(measured) == {"ms", *(field.name for field in fields(Latency))}
        assert measured["protocol"]["dtype"] == "bfloat16"
        assert measured["protocol"]["channels_last"] is False


@pytest.mark.slow
def test_several_networks_are_measured_in_turn_and_compared(
    capfd: pytest.CaptureFixture[str], file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "beside.py").write_text("WIDTH = 60\n")  # a module of the same name, with other content
    (other / "later.py").write_text("DEPTH = 1\n")
    (other / "mine.py").write_text(NETWORK.replace("self.conv(x).mean", "self.conv(x).relu().mean"))
    names = ["other/mine.py:Network", f"{file.name}:Network", f"{file.name}:make"]
    arguments = ["measure", *names, "--input", "3x64x64", "--batch-size", "8,1", "--device", "cpu"]
    code, out, _ = call(capfd, *arguments, "--json")
    assert code == 0
    data = json.loads(out)
    assert [network["label"] for network in data["networks"]] == names
    assert [network["params"] for network in data["networks"]] == [60 * 28, 6 * 28, 6 * 28]
    at_eight = [network["measured"][0] for network in data["networks"]]
    assert {measured["protocol"]["batch_size"] for measured in at_eight} == {8}
    assert len({measured["session"] for measured in at_eight}) == 1
    assert [alike["batch_size"] for alike in data["alike"]] == [8, 1]
    fastest, *slower = data["alike"][0]["groups"]
    assert 0 in slower[-1]  # ten times the channels
    assert 0 not in fastest
    code, out, err = call(capfd, *arguments)
    assert code == 0
    assert "in turn" in err
    table = out[out.index("batch 8, measured in turn") :].splitlines()
    places = [line.split() for line in table[2:5]]
    assert places[0][0] == "1"
    assert places[-1][:2] == ["3", names[0]]
    assert not [name for name in sys.modules if name in ("beside", "later")]


def test_candidates_of_a_space_are_compared_too(capfd: pytest.CaptureFixture[str]) -> None:
    archs = ["--arch", "smallest", "--arch", "largest"]
    code, out, _ = call(capfd, "measure", "--space", "digits", *archs, "--batch-size", "1", "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["alike"] == [{"batch_size": 1, "groups": [[0], [1]]}]


@pytest.mark.subprocess
@pytest.mark.parametrize("mode", ["eager", "compile", "onnxruntime"])
def test_every_mode_prints_nothing_beside_its_json(capfd: pytest.CaptureFixture[str], mode: str) -> None:
    arguments = ["--space", "digits", "--arch", "smallest", "--classes", "7", "--batch-size", "2", "--device", "cpu"]
    code, out, err = call(capfd, "measure", *arguments, "--mode", mode, "--json")
    assert code == 0
    assert json.loads(out)["measured"][0]["protocol"]["mode"] == mode
    assert err == ""


def test_a_class_or_function_of_a_file_and_nothing_of_it_stays(file: Path) -> None:
    path, modules = list(sys.path), set(sys.modules)
    for name, count in (("Network", 1), ("make", 1), ("ready", 0)):
        with named(f"{file}:{name}", (3, 8, 8)) as found:
            assert len([part for part in found.module.modules() if isinstance(part, torch.nn.Conv2d)]) == count
            assert found.input_shape == (3, 8, 8)
    assert sys.path == path
    assert set(sys.modules) == modules
    assert sorted(entry.name for entry in file.parent.iterdir()) == ["beside.py", "later.py", "mine.py"]


@pytest.mark.subprocess
def test_a_class_of_a_file_is_compiled(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    arguments = ["--input", "3x8x8", "--batch-size", "1", "--mode", "compile", "--device", "cpu"]
    assert call(capsys, "measure", f"{file}:make", *arguments)[0] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Net", "the file has no 'Net'"),
        ("Needy", "Needy\\(\\) raised TypeError"),
        ("exits", "exits\\(\\) raised SystemExit: 3"),
        ("text", "text\\(\\) gives str, not an nn.Module"),
        ("NUMBER", "NUMBER is neither a class nor a function"),
    ],
)
def test_what_a_file_does_not_give_is_said_in_a_sentence(file: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error, named(f"{file}:{name}", (3, 8, 8)):
        pass
    assert str(file) in str(error.value)


def test_a_file_needs_its_input_and_has_to_be_importable(tmp_path: Path, file: Path) -> None:
    with pytest.raises(InputError, match="give input, as in input 3x224x224"), named(f"{file}:Network", None):
        pass
    broken = tmp_path / "broken.py"
    broken.write_text("import torch\nclass Network(:\n")
    modules = set(sys.modules)
    with (
        pytest.raises(InputError, match=r"broken.py: importing it raised SyntaxError"),
        named(f"{broken}:N", (3, 8, 8)),
    ):
        pass
    assert set(sys.modules) == modules


@pytest.mark.subprocess
def test_an_exported_folder(make_run: RunFactory, tmp_path: Path) -> None:
    run = make_run()
    architecture = run.settings.space.smallest.canonical
    network = build(architecture, 10)
    run.save_weights(architecture.digest, weights_content(network.state_dict()))
    evaluation = Evaluation(Outcome.DONE, None, Cost(1, 1))
    record = TrialRecord(0, architecture.digest, str(architecture), architecture, {}, evaluation, {"accuracy": 0.5})
    folder = export_candidate(run, record, tmp_path / "model", ExportOptions(measure=False))
    with named(str(folder), None) as found:
        assert found.label == "model"
        assert found.input_shape == architecture.input_shape
        images = torch.randn(2, *found.input_shape)
        torch.testing.assert_close(found.module(images), network.eval()(images))
    assert not (folder / "__pycache__").exists()
    with pytest.raises(InputError, match="input cannot be given"), named(str(folder), (1, 8, 8)):
        pass
    (folder / "model.json").write_text('{"preprocessing": {"input_shape": [1, 8]}}')
    with (
        pytest.raises(InputError, match=r"model.json: preprocessing.input_shape cannot be read"),
        named(str(folder), None),
    ):
        pass
    (folder / "model.json").unlink()
    with pytest.raises(InputError, match=r"it has no model.json$"), named(str(folder), None):
        pass


def test_a_network_that_cannot_run_is_exit_code_1_and_what_was_measured_is_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "small.py"
    path.write_text(
        "from torch import nn\nclass Small(nn.Module):\n    def forward(self, x):\n"
        "        if len(x) > 2:\n            raise RuntimeError('out of\\nmemory')\n        return x + 1\n"
    )
    arguments = ["measure", f"{path}:Small", "--input", "1x4x4", "--batch-size", "1,2,4,8", "--device", "cpu"]
    code, out, err = call(capsys, *arguments, "--json")
    assert code == 1
    assert [measured["protocol"]["batch_size"] for measured in json.loads(out)["measured"]] == [1, 2]
    assert err.strip().endswith("could not be measured in mode eager: RuntimeError: out of memory")
    assert len(err.strip().splitlines()) == 1
    code, out, err = call(capsys, *arguments)
    assert code == 1
    assert "batch 2" in out


def measured(**changes: object) -> Latency:
    latency = Latency(
        2.0, 1.9, 2.1, 0.01, 30, 1, False, False, 0.0, True, "H100", (1, 3, 8, 8), LatencyProtocol(device="cuda"),
        reference_ms=(1.0, 1.0), others=0.0, before=DeviceState(1980, 2619, 70, 40, ()),
        after=DeviceState(1755, 2619, 350, 55, ("power cap",)), software={"torch": "2"},
    )  # fmt: skip
    return replace(latency, **changes)  # type: ignore[arg-type]


def test_marks_come_with_their_meaning() -> None:
    calm = "\n".join(protocol_lines([measured()]))
    assert "clock 1980 → 1755 MHz" in calm
    assert "power 70 → 350 W" in calm
    assert "clocks held back by power cap" in calm
    assert "other processes: 0 % of the device" in calm
    assert "is noisy" not in calm
    assert "is contended" not in calm
    wide = protocol_lines([measured(noisy=True, spread=0.08)])[-1]
    assert wide == "batch 1 is noisy: the spread stayed at 8.0 %"
    drifted = protocol_lines([measured(noisy=True, reference_ms=(1.0, 1.06))])[-1]
    assert "the reference network by 6.0 %" in drifted
    busy = protocol_lines([measured(contended=True, others=0.4)])[-1]
    assert "is contended" in busy
    assert "40 %" in busy
    unknown = "\n".join(protocol_lines([measured(others=None, before=None, after=None)]))
    assert "other processes: unknown" in unknown
    assert "clock, memory clock, power, temperature not known here" in unknown


def test_the_python_function_does_the_same() -> None:
    import nas

    assert nas.measure is latency_module.measure
    latency = nas.measure(torch.nn.Flatten(), (1, 8, 8), nas.LatencyProtocol(warmup_s=0, max_s=0.02, min_blocks=3))
    assert asdict(latency)["protocol"]["batch_size"] == 1
