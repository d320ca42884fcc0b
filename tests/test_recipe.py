"""Recipes: where each value comes from, that they come back as they were written, and that bad input is one sentence."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RunFactory

from nas.cli.options import chosen_recipe, flag_of
from nas.common.errors import InputError
from nas.runs.settings import EvaluationSettings, SearchSettings
from nas.runs.store import open_run
from nas.spaces.files import load_space
from nas.training.recipe import Recipe, default_recipe, read_recipe, recipe_text

KEYS = [field.name for field in fields(Recipe)]
OTHER = Recipe(
    epochs=3,
    steps=70,
    seconds=12.5,
    patience=2,
    batch_size=32,
    optimizer="sgd",
    learning_rate=0.25,
    momentum=0.5,
    weight_decay=1e-5,
    schedule="cosine",
    warmup=0.0,
    clip_norm=1.5,
    ema=0.99,
    label_smoothing=0.0,
    dropout=0.2,
    balance="sampling",
    trainable="head+2",
    precision="bfloat16",
    compile=True,
    hflip=False,
    crop_share=0.0,
    resized_crop=0.25,
    cutout=0.5,
    colour=0.4,
    mixup=0.2,
    cutmix=1.0,
)
"""Every value another than by default."""


def chosen(init: str = "scratch", file: Path | None = None, *assignments: str, **flags: Any) -> Recipe:
    """What the command line gives, the flags left out being None."""
    own = {"epochs": None, "batch_size": None, "learning_rate": None} | flags
    return chosen_recipe(init, file, list(assignments), **own)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 5\nbatch_size: 32\nlearning_rate: 1e-3\noptimizer: sgd\n")
    return path


def test_the_recipe_that_changes_everything_does() -> None:
    assert [key for key in KEYS if getattr(OTHER, key) == getattr(Recipe(), key)] == []


@pytest.mark.parametrize("init", ["efficientnet_lite0", "mobilenet_v2", "/some/folder"])
def test_inherited_weights_are_trained_at_a_lower_rate_by_default(init: str, file: Path) -> None:
    assert chosen("scratch") == Recipe()
    assert chosen(init) == replace(Recipe(), learning_rate=0.002)
    assert chosen(init, file).learning_rate == 0.001  # what is said counts for either
    assert chosen(init, None, "learning_rate=0.5").learning_rate == 0.5


def test_a_file_is_overridden_by_flags_and_those_by_set(file: Path) -> None:
    assert chosen("scratch", file) == Recipe(epochs=5, batch_size=32, learning_rate=0.001, optimizer="sgd")
    both = chosen("scratch", file, epochs=7, batch_size=16)
    assert both == Recipe(epochs=7, batch_size=16, learning_rate=0.001, optimizer="sgd")
    all_three = chosen("scratch", file, "epochs=9", "optimizer=adamw", epochs=7, batch_size=16)
    assert all_three == Recipe(epochs=9, batch_size=16, learning_rate=0.001, optimizer="adamw")


def test_a_file_and_assignments_together(file: Path) -> None:
    recipe = read_recipe(OTHER, file, ["epochs=9"])
    assert recipe == replace(OTHER, epochs=9, batch_size=32, learning_rate=0.001, optimizer="sgd")


def test_the_last_of_two_assignments_counts() -> None:
    assert chosen("scratch", None, "epochs=9", "epochs=4").epochs == 4


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 0.001),  # text for YAML, a number for its reader
        (" ema = 0.9", "ema", 0.9),
        ("steps=100", "steps", 100),
        ("seconds=2", "seconds", 2.0),
        ("epochs=2.0", "epochs", 2),
        ("hflip=true", "hflip", True),
        ("compile=yes", "compile", True),
        ("trainable=head+12", "trainable", "head+12"),
        ("trainable=gradual", "trainable", "gradual"),
        ("balance=none", "balance", "none"),
        ("mixup=1", "mixup", 1.0),
        ("crop_share=1", "crop_share", 1.0),  # the ends of what is allowed
        ("label_smoothing=0", "label_smoothing", 0.0),
        ("batch_size=2", "batch_size", 2),
    ],
)
def test_values_as_text(text: str, key: str, value: Any) -> None:
    recipe = chosen("scratch", None, text)
    assert recipe == replace(Recipe(), **{key: value})
    assert type(getattr(recipe, key)) is type(value)


def test_a_value_can_be_taken_back() -> None:
    recipe = read_recipe(OTHER, None, ["steps=", "seconds=null", "hflip=~"])
    assert (recipe.steps, recipe.seconds, recipe.hflip) == (None, None, None)


@pytest.mark.parametrize("recipe", [Recipe(), default_recipe(inherits=True), OTHER], ids=["plain", "inherits", "other"])
@pytest.mark.parametrize("base", [Recipe(), OTHER], ids=["onto plain", "onto other"])
def test_a_written_recipe_is_read_as_the_same(recipe: Recipe, base: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "written.yaml"
    path.write_text(recipe_text(recipe))
    assert list(yaml.safe_load(path.read_text())) == KEYS
    assert read_recipe(base, path) == recipe


def test_a_run_keeps_its_recipe(make_run: RunFactory) -> None:
    settings = SearchSettings(load_space("digits"), "digits", evaluation=EvaluationSettings(recipe=OTHER))
    assert open_run(make_run(settings).path).settings.evaluation.recipe == OTHER


# Texts as after --set, and what the sentence says of them beside the key and the value.
BAD = [
    ("epochs=-1", "at least 0"),
    ("epochs=2.5", "whole number"),
    ("epochs=two", "whole number"),
    ("epochs=", "whole number"),
    ("epochs=[1, 2]", "whole number"),
    ("epochs={a: 1}", "whole number"),
    ("epochs=true", "number"),
    ("steps=0", "at least 1"),
    ("seconds=0", "above 0"),
    ("seconds=nan", "finite"),
    ("patience=-1", "at least 0"),
    ("batch_size=1", "at least 2"),
    ("optimizer=adam", "'adamw' or 'sgd'"),
    ("learning_rate=0", "above 0"),
    ("learning_rate=.nan", "finite"),
    ("learning_rate=-.inf", "finite"),
    ("learning_rate=fast", "number"),
    ("momentum=1", "below 1"),
    ("momentum=nan", "below 1"),
    ("weight_decay=-0.1", "at least 0"),
    ("weight_decay=inf", "finite"),
    ("schedule=step", "'onecycle' or 'cosine'"),
    ("warmup=1", "below 1"),
    ("clip_norm=-1", "at least 0"),
    ("ema=1", "below 1"),
    ("label_smoothing=1", "below 1"),
    ("dropout=1", "below 1"),
    ("balance=no", "'none', 'loss' or 'sampling'"),
    ("trainable=tail", "use all, head, head+K or gradual"),
    ("trainable=head+0", "use all, head, head+K or gradual"),
    ("trainable=headless", "use all, head, head+K or gradual"),
    ("trainable=3", "text"),
    ("precision=float64", "'auto', 'float32', 'bfloat16' or 'float16'"),
    ("compile=maybe", "true or false"),
    ("hflip=2", "true or false"),
    ("crop_share=1.5", "at most 1"),
    ("resized_crop=-0.1", "at least 0"),
    ("cutout=.nan", "at most 1"),
    ("cutout=true", "number"),
    ("colour=1", "below 1"),
    ("mixup=.inf", "finite"),
    ("cutmix=-1", "at least 0"),
]


def test_every_key_has_a_bad_value_here() -> None:
    assert {text.partition("=")[0] for text, _ in BAD} == set(KEYS)


def one_sentence(file: Path | None, *assignments: str) -> str:
    """What is said of a recipe that is refused, however it is reached."""
    with pytest.raises(InputError) as raised:
        chosen("scratch", file, *assignments)
    assert "\n" not in raised.value.named(flag_of)
    return raised.value.named(flag_of)


@pytest.mark.parametrize(("text", "allowed"), BAD, ids=[text for text, _ in BAD])
def test_a_bad_value_is_named_with_what_is_allowed(text: str, allowed: str, tmp_path: Path) -> None:
    key, _, value = text.partition("=")
    path = tmp_path / "bad.yaml"
    path.write_text(f"# a recipe\n{key}: {value}\n")
    parsed = repr(yaml.safe_load(value))
    for sentence, source in ((one_sentence(None, text), f"--set {text}"), (one_sentence(path), f"--recipe {path}:2")):
        assert sentence.startswith(f"{source}: {key} {parsed}: ")
        assert allowed in sentence.removeprefix(source)


@pytest.mark.parametrize("key", ["lr", "EPOCHS", "learning-rate", "", "1"])
def test_an_unknown_key_is_answered_by_all_keys(key: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"epochs: 3\n{key or chr(34) * 2}: 1\n")
    for sentence, source in (
        (one_sentence(None, f"{key}=1"), f"--set {key}=1: unknown key"),
        (one_sentence(path), f"--recipe {path}:2: unknown key"),
    ):
        assert sentence.startswith(source)
        assert key in sentence.removeprefix(source).partition(";")[0]
        assert sentence.endswith(", ".join(KEYS))


@pytest.mark.parametrize("text", ["epochs", "epochs 3", "mine.yaml"])
def test_what_is_no_assignment_is_answered_by_their_form(text: str) -> None:
    sentence = one_sentence(None, text)
    assert sentence.startswith(f"--set {text}: write KEY=VALUE")
    assert sentence.endswith(", ".join(KEYS))


@pytest.mark.parametrize("value", ["[1", "{a", "2024-13-45", "!!python/object/apply:os.getcwd []", "\t\0"])
def test_a_value_that_yaml_cannot_read(value: str) -> None:
    assert f"--set epochs={value}: {value!r} is not a value" in one_sentence(None, f"epochs={value}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epochs: [", "not valid YAML"),
        (b"epochs: 3\n- bad", "not valid YAML"),
        (b"epochs: 2024-13-45", "not valid YAML"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"a\0b", "not valid YAML"),
        (b"\x89PNG\r\n\x1a\n\xff", "cannot be read: not a UTF-8 text file"),
        (b"- epochs\n- 3\n", "needs lines of KEY: VALUE"),
        (b"epochs = 3\n", "needs lines of KEY: VALUE"),
        (b"", "needs lines of KEY: VALUE"),
    ],
)
def test_a_file_that_is_no_recipe(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    assert re.match(rf"--recipe {re.escape(str(path))}(:\d+)?: {said}", one_sentence(path))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert one_sentence(missing) == f"--recipe {missing}: cannot be read: No such file or directory"
    assert one_sentence(tmp_path) == f"--recipe {tmp_path}: cannot be read: Is a directory"


@pytest.mark.parametrize("assignments", [(), ("epochs=3",)])
@pytest.mark.parametrize("rate", [math.nan, math.inf])
def test_a_flag_that_its_parser_lets_pass_is_one_sentence(rate: float, assignments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=rf"^learning_rate {rate}: must be a finite number$"):
        chosen("scratch", None, *assignments, learning_rate=rate)


def test_all_mistakes_of_a_recipe_are_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("epochs: -1\nlearningrate: 0.1\nwarmup: 0.2\nbatch_size: many\n")
    with pytest.raises(InputError) as raised:
        chosen("scratch", path, "optimiser=sgd", "momentum=2", "dropout")
    told = raised.value.named(flag_of).splitlines()
    assert len(told) == 3  # those of the file, which flags then change
    assert told[0].startswith(f"--recipe {path}:1: epochs -1: ")
    assert told[1].startswith(f"--recipe {path}:2: unknown key 'learningrate' (did you mean 'learning_rate'?)")
    assert told[2].startswith(f"--recipe {path}:4: batch_size 'many': ")
    with pytest.raises(InputError) as raised:
        chosen("scratch", None, "optimiser=sgd", "momentum=2", "dropout")
    told = raised.value.named(flag_of).splitlines()
    assert [line.partition(":")[0] for line in told] == ["--set optimiser=sgd", "--set momentum=2", "--set dropout"]
    assert "(did you mean 'optimizer'?)" in told[0]


def test_a_key_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("epochs: 3\nbatch_size: 8\nepochs: 5\n")
    assert one_sentence(path) == f"--recipe {path}:3: the key 'epochs' is given twice"


def test_a_key_that_was_called_otherwise_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("mirror: true\nepochs: 3\n")
    assert read_recipe(Recipe(), tmp_path / "old.yaml") == Recipe(epochs=3, hflip=True)
    assert read_recipe(Recipe(), assignments=["mirror=false"]) == Recipe(hflip=False)
    assert "hflip: true" in recipe_text(Recipe(hflip=True))
