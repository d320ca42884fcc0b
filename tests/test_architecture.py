"""One network as a value: spellings, digest, string and JSON."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from mobile import mobile_space

from nas.common.errors import InputError
from nas.spaces.files import list_spaces
from nas.spaces.mobile.architecture import Architecture, LayerSpec, StemSpec, parse_architecture

LAYER = LayerSpec(kernel_size=3, dilation=1, expansion=2, separable=True, out_channels=8, stride=1)
PLAIN = Architecture(
    input_channels=3,
    input_size=8,
    stem=StemSpec(kernel_size=3, stride=1, out_channels=8),
    layers=(LAYER, replace(LAYER, kernel_size=5, dilation=2, separable=False, out_channels=12, stride=2)),
    head_channels=16,
)
PLAIN_DIGEST = "45918b9e43817c8f"


def one_layer(size: int = 8, **changes: Any) -> Architecture:
    """`PLAIN` at another input size, with its first layer alone and that changed."""
    return replace(PLAIN, input_size=size, layers=(replace(LAYER, **changes),))


def samples(space_name: str, count: int) -> list[Architecture]:
    space, rng = mobile_space(space_name), random.Random(0)
    return [space.architecture(space.sample(rng)) for _ in range(count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(one_layer(kernel_size=1, dilation=3), one_layer(kernel_size=1), id="dilated 1x1"),
        pytest.param(one_layer(2, dilation=2), one_layer(2, kernel_size=1), id="k3d2 on a 2x2 map"),
        pytest.param(one_layer(3, kernel_size=7), one_layer(3, kernel_size=5), id="kernel beyond the map"),
        pytest.param(one_layer(1, kernel_size=7, dilation=3), one_layer(1, kernel_size=1), id="1x1 map"),
        pytest.param(one_layer(4, kernel_size=7, dilation=2), one_layer(4, dilation=2), id="two pairs of taps dropped"),
        pytest.param(one_layer(expansion=1), one_layer(expansion=1.0), id="expansion as int and float"),
        pytest.param(one_layer(expansion=0.5), one_layer(expansion=0.51), id="expansion to the same channels"),
        pytest.param(
            replace(one_layer(2), stem=StemSpec(7, 1, 8)), replace(one_layer(2), stem=StemSpec(3, 1, 8)), id="stem"
        ),
        pytest.param(
            replace(one_layer(4, kernel_size=5, dilation=1), stem=StemSpec(3, 2, 8)),
            replace(one_layer(4, kernel_size=3, dilation=1), stem=StemSpec(3, 2, 8)),
            id="map after the strided stem",
        ),
    ],
)
def test_two_spellings_of_one_network_have_one_digest(one: Architecture, other: Architecture) -> None:
    assert one.digest == other.digest
    assert one.canonical == other.canonical


SECOND = PLAIN.layers[1]


@pytest.mark.parametrize(
    "changed",
    [
        replace(PLAIN, input_channels=1),
        replace(PLAIN, input_size=9),
        replace(PLAIN, stem=replace(PLAIN.stem, kernel_size=5)),
        replace(PLAIN, stem=replace(PLAIN.stem, stride=2)),
        replace(PLAIN, stem=replace(PLAIN.stem, out_channels=9)),
        replace(PLAIN, head_channels=0),
        replace(PLAIN, padding="tf_same"),
        replace(PLAIN, activation="relu"),
        replace(PLAIN, norm_eps=1e-3),
        replace(PLAIN, layers=(LAYER,)),
        replace(PLAIN, layers=(LAYER, LAYER, SECOND)),
        replace(PLAIN, layers=(SECOND, LAYER)),
        replace(PLAIN, layers=(replace(LAYER, kernel_size=5), SECOND)),
        replace(PLAIN, layers=(replace(LAYER, dilation=2), SECOND)),
        replace(PLAIN, layers=(replace(LAYER, expansion=2.5), SECOND)),
        replace(PLAIN, layers=(replace(LAYER, separable=False), SECOND)),
        replace(PLAIN, layers=(replace(LAYER, out_channels=9), SECOND)),
        replace(PLAIN, layers=(replace(LAYER, stride=2), SECOND)),
    ],
    ids=lambda changed: f"{changed}",
)
def test_different_networks_have_different_digests(changed: Architecture) -> None:
    assert changed.digest != PLAIN.digest


@pytest.mark.subprocess
def test_digest_is_the_same_in_every_version_and_process() -> None:
    """The digest keys records and caches on disk: changing it silently would orphan every run made before."""
    assert PLAIN.digest == PLAIN_DIGEST
    program = (
        "import sys; from nas.spaces.mobile.architecture import Architecture; import json;"
        "print(Architecture.from_json(json.loads(sys.argv[1])).digest)"
    )
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", program, json.dumps(PLAIN.to_json())],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert run.stdout.strip() == PLAIN_DIGEST


@pytest.mark.parametrize("space_name", list_spaces())
def test_canonical_form_of_random_samples(space_name: str) -> None:
    """The canonical form is its own, keeps the digest and every shape, and never costs a tap more."""
    for architecture in samples(space_name, 500):
        canonical = architecture.canonical
        assert canonical.canonical == canonical
        assert canonical.digest == architecture.digest
        assert [shape for _, shape in canonical.shapes()] == [shape for _, shape in architecture.shapes()]
        assert canonical.output_shape == architecture.output_shape
        for (after, shape), before in zip(canonical.shapes(), architecture.layers, strict=True):
            assert after.kernel_size <= before.kernel_size
            assert after.hidden_channels(shape.in_channels) == before.hidden_channels(shape.in_channels)


@pytest.mark.parametrize("space_name", list_spaces())
def test_json_and_string_round_trips(space_name: str) -> None:
    like = mobile_space(space_name).smallest
    for architecture in samples(space_name, 100):
        assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture
        assert parse_architecture(str(architecture), like) == architecture
        assert parse_architecture(f"  {architecture.canonical}\n", like).digest == architecture.digest


@pytest.mark.parametrize("expansion", [0.5, 1 / 3, 2 / 7, 2.5, 1.0, 6])
def test_fractional_expansions_survive_the_string(expansion: float) -> None:
    architecture = replace(PLAIN, stem=StemSpec(3, 1, 8191), layers=(replace(LAYER, expansion=expansion),))
    assert parse_architecture(str(architecture), PLAIN).digest == architecture.digest
    assert parse_architecture(str(architecture.canonical), PLAIN).digest == architecture.digest


def test_string_reads_as_documented() -> None:
    assert str(PLAIN) == "r8-c8k3-k3e2s8-k5d2e2f12/2-h16"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("digits", "'digits'"),
        ("r8-c8k3-h0", "'r8-c8k3-h0'"),
        ("r0-c8k3-k3e2s8-h0", "'r0-"),
        ("8-c8k3-k3e2s8-h0", "'8-c8k3"),
        ("r8-c8k3-k3e2s8", "'r8-c8k3-k3e2s8'"),
        ("r8-k3c8-k3e2s8-h0", "the stem 'k3c8'"),
        ("r8-c8-k3e2s8-h0", "the stem 'c8'"),
        ("r8-c8k3-k3e2x8-h0", "the layer 'k3e2x8'"),
        ("r8-c8k3-k3e2s8-k3s8-h0", "the layer 'k3s8'"),
        ("r8-c8k3-k3e2s8--h0", "the layer ''"),
        ("r8-c8k3-k-3e2s8-h0", "the layer 'k'"),
        ("r8-c8k3-k3e2s8/-h0", "the layer 'k3e2s8/'"),
        ("r8-c8k3-k3e2s8 k3e2s8-h0", "the layer 'k3e2s8 k3e2s8'"),
        ("r8-c8k3-k3d2.5e2s8-h0", "the layer 'k3d2.5e2s8'"),
        (f"r8-c8k3-k3e2s{'9' * 5000}-h0", "the layer 'k3e2s999"),
        (f"r8-c8k3-k3e2s8-h{'9' * 5000}", "'r8-c8k3-k3e2s8-h999"),
    ],
    ids=lambda value: value[:40],
)
def test_garbage_strings_are_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_architecture(text, PLAIN)
    assert named in str(caught.value)
    assert "is not of the form" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("r8-c8k3/0-k3e2s8-h0", "the stem 'c8k3/0'"),
        ("r8-c0k3-k3e2s8-h0", "the stem 'c0k3'"),
        ("r8-c8k0-k3e2s8-h0", "the stem 'c8k0'"),
        ("r8-c8k3-k3e2s8/0-h0", "the layer 'k3e2s8/0'"),
        ("r8-c8k3-k3e2s0-k3e2s8-h0", "the layer 'k3e2s0'"),
        ("r8-c8k3-k0e2s8-h0", "the layer 'k0e2s8'"),
        ("r8-c8k3-k3d0e2s8-h0", "the layer 'k3d0e2s8'"),
        ("r8-c8k3-k3e0s8-h0", "the layer 'k3e0s8'"),
        ("r8-c8k3-k4e2s8-h0", "the layer 'k4e2s8'"),
    ],
)
def test_strings_of_no_possible_network_are_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        parse_architecture(text, PLAIN)


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


JSON = PLAIN.to_json()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (without(JSON, "stem"), "stem"),
        ({**JSON, "stem": without(JSON["stem"], "stride")}, r"stem\.stride"),
        ({**JSON, "layers": [without(JSON["layers"][0], "dilation")]}, r"layers\.0\.dilation"),
        ({**JSON, "input_size": "eight"}, "input_size"),
        ({**JSON, "head_channels": None}, "head_channels"),
        ({**JSON, "padding": "valid"}, "padding"),
        ({**JSON, "layers": 3}, "layers"),
    ],
)
def test_bad_json_is_refused_by_key(data: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"not an architecture: {named}"):
        Architecture.from_json(data)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({**JSON, "width": 3}, "width"),
        ({**JSON, "stem": {**JSON["stem"], "dilation": 2}}, r"stem\.dilation"),
        ({**JSON, "stem": {**JSON["stem"], "stride": 0}}, r"stem\.stride"),
        ({**JSON, "input_size": 0}, "input_size"),
        ({**JSON, "layers": [{**JSON["layers"][0], "stride": 0}]}, r"layers\.0\.stride"),
    ],
    ids=["unknown key", "unknown key in the stem", "stem stride 0", "input size 0", "layer stride 0"],
)
def test_json_of_no_possible_network_is_refused_by_key(data: dict[str, Any], named: str) -> None:
    """`from_json` promises to refuse unknown keys; a record of a newer version must not lose a field silently."""
    with pytest.raises(InputError, match=f"not an architecture: {named}"):
        Architecture.from_json(data)


def test_receptive_field_of_a_network() -> None:
    # 1 + 2·1 (stem) + 2·1 (k3) + 8·1 (k5d2)
    assert PLAIN.receptive_field == 13


def test_shapes_follow_the_strides() -> None:
    shapes = [(shape.in_channels, shape.in_size) for _, shape in replace(PLAIN, input_size=7).shapes()]
    assert shapes == [(8, 7), (8, 7)]
    assert replace(PLAIN, input_size=7).output_shape.in_size == 4
