"""The file of a search space: found by name or path, and every mistake in it answered by one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mobile import mobile_space

from nas.common.errors import InputError
from nas.data.sets import check_data_name
from nas.spaces.files import check_space, list_spaces, spaces_folder

GOOD = """\
name: mine
input: {channels: 1, size: 8}
stem: {kernel_size: 3, out_channels: 8}
stages:
  - out_channels: 8
    kernel_size: [3, 5]
    expansion: [1, 2]
  - out_channels: 16
    stride: 2
    kernel_size: 3
    expansion: 2
head_channels: [0, 16]
"""


def sentence(path: Path | str) -> str:
    """What the user reads when this space is asked for: one line, whatever the file held."""
    with pytest.raises(InputError) as caught:
        mobile_space(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} must mark one place"
    return GOOD.replace(old, new)


def test_the_file_that_the_mistakes_are_made_in_is_good(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    space = mobile_space(path)
    assert space == mobile_space(str(path))
    assert (space.name, space.raw_size, space.padding) == ("mine", 2 * 2 * 2, "symmetric")
    assert str(space.largest) == "r8-c8k3-k5e2s8-k3e2s16/2-h16"


def test_shipped_spaces_are_found_by_name() -> None:
    assert list_spaces() == ["cifar", "digits", "lite0", "lite0_small"]
    for name in list_spaces():
        assert mobile_space(name).name == name
        assert mobile_space(name) == mobile_space(spaces_folder() / f"{name}.yaml")


# Where the mistake is (line, key path) and what else the sentence must name.
MISTAKES = {
    "unknown key at the top": (GOOD + "kernels: 3\n", 13, "", ["unknown key 'kernels'", "stem", "stages", "padding"]),
    "unknown key in a stage": (
        edited("    stride: 2\n", "    strides: 2\n"),
        9,
        "stages.1",
        ["unknown key 'strides'", "stride", "dilation", "backbone"],
    ),
    "unknown key in the stem": (
        edited("{kernel_size: 3, ", "{width: 3, "),
        3,
        "stem",
        ["unknown key 'width'", "kernel_size, stride, out_channels"],
    ),
    "unknown key in the input": (edited("channels: 1,", "chanels: 1,"), 2, "input", ["'chanels'", "channels, size"]),
    "string for an integer": (
        edited("[3, 5]", '["3", 5]'),
        6,
        "stages.0.kernel_size.0",
        ["'3'", "an odd whole number or a list of them, from 1 to 15"],
    ),
    "word for an integer": (
        edited("[3, 5]", "three"),
        6,
        "stages.0.kernel_size",
        ["'three'", "whole number or a list of them"],
    ),
    "bool for an integer": (
        edited("stride: 2", "stride: true"),
        9,
        "stages.1.stride",
        ["true", "a whole number or a list of them, from 1 to 4"],
    ),
    "float for a kernel": (edited("[3, 5]", "3.0"), 6, "stages.0.kernel_size", ["3.0", "whole number"]),
    "integer for a flag": (
        edited("stride: 2", "separable: 1"),
        9,
        "stages.1.separable",
        ["1", "true or false or a list of them"],
    ),
    "nothing for a list": (
        edited(" [3, 5]", ""),
        6,
        "stages.0.kernel_size",
        ["nothing", "whole number or a list of them"],
    ),
    "list in a list": (
        edited("[3, 5]", "[[3, 5]]"),
        6,
        "stages.0.kernel_size.0",
        ["[3, 5]", "whole number or a list of them"],
    ),
    "number for a section": (
        edited("{kernel_size: 3, out_channels: 8}", "3"),
        3,
        "stem",
        ["3 is not allowed", "mapping"],
    ),
    "number for the name": (
        edited("name: mine", "name: 5"),
        1,
        "name",
        ["5 is not allowed", "a name of at most 60 lower-case letters"],
    ),
    "name with a space": (
        edited("name: mine", "name: my space"),
        1,
        "name",
        ["'my space'", "lower-case letters, digits"],
    ),
    "empty choice": (edited("[3, 5]", "[]"), 6, "stages.0.kernel_size", ["empty choice", "at least one"]),
    "no stages": (GOOD.split("stages:")[0] + "stages: []\n", 4, "stages", ["at least one"]),
    "mapping for the stages": (GOOD.split("stages:")[0] + "stages: {first: 1}\n", 4, "stages", []),
    "even kernel": (edited("[3, 5]", "[3, 4]"), 6, "stages.0.kernel_size.1", ["4 is not allowed", "odd"]),
    "kernel too large": (edited("[3, 5]", "[3, 17]"), 6, "stages.0.kernel_size.1", ["17 is not allowed", "15"]),
    "duplicate choice": (edited("[3, 5]", "[3, 3]"), 6, "stages.0.kernel_size", ["[3, 3]", "twice"]),
    "duplicate choice in two spellings": (edited("[1, 2]", "[1, 1.0]"), 7, "stages.0.expansion", ["[1, 1.0]", "twice"]),
    "duplicate key at the top": (GOOD + "name: other\n", 13, "", ["the key 'name' is given twice"]),
    "duplicate key in a stage": (
        edited("    stride: 2\n", "    stride: 2\n    stride: 2\n"),
        10,
        "",
        ["the key 'stride' is given twice"],
    ),
    "negative channels": (
        edited("- out_channels: 16", "- out_channels: -16"),
        8,
        "stages.1.out_channels",
        ["-16", "1"],
    ),
    "no channels": (edited("- out_channels: 16", "- out_channels: 0"), 8, "stages.1.out_channels", ["0", "1"]),
    "expansion of nothing": (
        edited("[1, 2]", "[0, 2]"),
        7,
        "stages.0.expansion.0",
        ["0 is not allowed", "a number or a list of them, above 0 and up to 16"],
    ),
    "expansion not a number": (edited("[1, 2]", ".nan"), 7, "stages.0.expansion", ["nan is not allowed"]),
    "stage too deep": (edited("stride: 2", "depth: 17"), 9, "stages.1.depth", ["17 is not allowed", "16"]),
    "unknown padding": (GOOD + "padding: same\n", 13, "padding", ["'same'", "'symmetric' or 'tf_same'"]),
    "missing key at the top": (edited("stem: {kernel_size: 3, out_channels: 8}\n", ""), 1, "", ["'stem' is missing"]),
    "missing key in a stage": (edited("    expansion: 2\n", ""), 8, "stages.1", ["'expansion' is missing"]),
    "missing key in the stem": (edited(", out_channels: 8}", "}"), 3, "stem", ["'out_channels' is missing"]),
}


@pytest.mark.parametrize(("text", "line", "key", "named"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_place(text: str, line: int, key: str, named: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    told = sentence(path)
    place = re.match(rf"{re.escape(str(path))}:(\d+): {re.escape(key and key + ': ')}", told)
    assert place, told
    assert int(place[1]) == line, told
    for word in named:
        assert word in told


# What is wrong only beside another key, found once each key for itself is right.
DISAGREEMENTS = {
    "stride on a 1x1 map": (edited("size: 8", "size: 1"), 9, ["stages.1.stride", "stride of 2", "1x1"]),
    "backbone value in a stage": (
        edited("stride: 2\n", "stride: 2\n    backbone: {kernel_size: 7}\n"),
        10,
        ["stages.1", "backbone.kernel_size", "7", "[3]"],
    ),
    "backbone key in a stage": (
        edited("stride: 2\n", "stride: 2\n    backbone: {kernel: 3}\n"),
        10,
        ["stages.1", "backbone.kernel", "out_channels, stride, kernel_size"],
    ),
    "backbone value at the top": (GOOD + "backbone: {input_size: 9}\n", 13, ["backbone.input_size", "9", "[8]"]),
    "backbone key at the top": (GOOD + "backbone: {size: 8}\n", 13, ["backbone.size", "input_size, stem.kernel_size"]),
}
disagreements = pytest.mark.parametrize(("text", "line", "named"), DISAGREEMENTS.values(), ids=DISAGREEMENTS.keys())


@disagreements
def test_a_disagreement_of_two_keys_is_named(text: str, line: int, named: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    told = sentence(path)
    assert told.startswith(f"{path}:")
    for word in named:
        assert word in told


@disagreements
def test_a_disagreement_of_two_keys_has_its_line(text: str, line: int, named: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert sentence(path).startswith(f"{path}:{line}: ")


def test_the_keys_offered_at_the_top_are_those_that_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + "kernels: 3\n")
    told = sentence(path)
    assert re.search(r"\bbackbone\b", told), told
    assert "backbone_input" not in told


NOT_SPACES: dict[str, tuple[str | bytes, str]] = {
    "not YAML": ("name: [mine\nstem: }\n", "not valid YAML"),
    "tab for indentation": ("stem:\n\tkernel_size: 3\n", "not valid YAML"),
    "two documents": (GOOD + "---\n" + GOOD, "not valid YAML"),
    "list": ("- name\n- stem\n", "a search space is a mapping"),
    "scalar": ("mine\n", "a search space is a mapping"),
    "empty": ("", "a search space is a mapping"),
    "only a comment": ("# later\n", "a search space is a mapping"),
    "key that is a list": (GOOD + "? [a]\n: 2\n", "not valid YAML"),
    "binary": (bytes(range(256)), "not a UTF-8 text file"),
    "zero bytes": (bytes(64), "not valid YAML"),
    "huge": ("#" * 1_000_001, "larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize(("content", "named"), NOT_SPACES.values(), ids=NOT_SPACES.keys())
def test_what_is_no_space_is_refused(content: str | bytes, named: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told = sentence(path)
    assert re.match(rf"{re.escape(str(path))}(:\d+)?: ", told)
    assert named in told


HOSTILE = {
    "impossible date": GOOD + "summary: 2024-13-45\n",
    "number without digits": GOOD + "summary: 0b_\n",
    "number of 5,000 digits": GOOD + "summary: " + "9" * 5_000 + "\n",
    "mapping that holds itself": GOOD + "backbone: &a {b: *a}\n",
    "nesting of 3,000 lists": GOOD + "summary: " + "[" * 3_000 + "]" * 3_000 + "\n",
    "long value": GOOD.replace("name: mine", "name: " + "M" * 100_000),
    "integer key": GOOD + "1: 2\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_files_are_refused_in_a_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert sentence(path).startswith(str(path))


@pytest.mark.timeout(3)
def test_a_file_of_nested_aliases_is_refused_at_once(tmp_path: Path) -> None:
    """Nine aliases of nine of nine …: some hundred bytes that stand for 400 million nodes."""
    levels = ["l0: &l0 [x]"] + [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    told = problems("\n".join([*levels, GOOD]), tmp_path)
    assert len(told) == 10  # the keys of the aliases, none of which a space has
    assert all("unknown key" in line and len(line) < 300 for line in told)
    for key in ("name", "family", "data", "stem"):
        bombs = problems("\n".join([*levels[:6], f"{key}: *l5"]), tmp_path)
        assert any(f": {key}: " in line and "is not allowed" in line for line in bombs)
        assert all(len(line) < 300 for line in bombs)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:os.system", "!!python/name:os.system"]
)
def test_python_tags_are_refused_and_not_executed(tag: str, tmp_path: Path) -> None:
    witness, path = tmp_path / "executed", tmp_path / "mine.yaml"
    argument = f"!!python/object/apply:pathlib.Path ['{witness}']" if "touch" in tag else f"touch {witness}"
    path.write_text(GOOD + f"summary: {tag} [{argument}]\n")
    assert "python/" in sentence(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "cifar11",
            "unknown search space 'cifar11' (did you mean 'cifar'?): use one of cifar, digits, lite0, lite0_small, or the path of a YAML file",
        ),
        ("", "unknown search space ''"),
        ("nowhere.yaml", "nowhere.yaml: no such file"),
        ("nowhere/digits", "nowhere/digits: no such file"),
        ("/", "/: no such file"),
    ],
)
def test_unknown_names_and_missing_files(name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence(name).startswith(told)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    assert "unknown search space" in sentence("x" * 300)


def problems(text: str, tmp_path: Path) -> list[str]:
    """What is said of a file, without its path, a line each."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        mobile_space(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_all_mistakes_of_a_file_are_said_at_once_each_with_its_line(tmp_path: Path) -> None:
    told = problems(
        edited("channels: 1,", "chanels: 1,")
        .replace("[3, 5]", "[3, four, 6]")
        .replace("stride: 2", "strid: 2")
        .replace("[0, 16]", "wide"),
        tmp_path,
    )
    assert [line.partition(": ")[0] for line in told] == ["2", "6", "6", "9", "12"]
    assert "unknown key 'chanels' (did you mean 'channels'?)" in told[0]
    assert any(
        line.startswith("6: stages.0.kernel_size.1: 'four' is not allowed: an odd whole number") for line in told
    )
    assert any(line.startswith("6: stages.0.kernel_size.2: 6 is not allowed: an odd whole number") for line in told)
    assert any(
        line.startswith("9: stages.1: unknown key 'strid' (did you mean 'stride'?); allowed here: depth")
        for line in told
    )
    assert any(
        line.startswith(
            "12: head_channels: 'wide' is not allowed: a whole number or a list of them, from 0 to 8192, is"
        )
        for line in told
    )


def test_keys_that_disagree_are_all_said_also_beside_unknown_ones(tmp_path: Path) -> None:
    told = problems(
        edited("size: 8", "size: 1").replace("    stride: 2\n", "    stride: 2\n    kernels: 3\n")
        + "backbone: {input_size: 9, head_channel: 16}\nsummry: x\n",
        tmp_path,
    )
    assert len(told) == 5
    assert not any("stages.1.stride: stages" in line for line in told)
    for words in (
        ("10: stages.1: unknown key 'kernels'", "'kernel_size'"),
        ("15: unknown key 'summry' (did you mean 'summary'?)",),
        ("14: backbone.input_size: backbone.input_size is 9, which is not among the choices [1]",),
        ("14: backbone.head_channel", "did you mean 'head_channels'?"),
        ("9: stages.1.stride: ", "a stride of 2 on a 1x1 feature map"),
    ):
        assert any(line.startswith(words[0]) and all(word in line for word in words) for line in told), (words, told)


def test_a_key_that_is_misspelt_is_not_missing_too(tmp_path: Path) -> None:
    assert len(problems(edited("    expansion: 2\n", "    expansions: 2\n"), tmp_path)) == 1
    both = problems(edited("    expansion: 2\n", "    colour: 2\n"), tmp_path)
    assert len(both) == 2
    assert any("the key 'expansion' is missing" in line for line in both)


def test_keys_that_are_given_twice_are_all_said(tmp_path: Path) -> None:
    told = problems(edited("    stride: 2\n", "    stride: 2\n    stride: 2\n") + "name: other\n", tmp_path)
    assert told == ["10: the key 'stride' is given twice", "14: the key 'name' is given twice"]


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ("cifra10", ["unknown data set 'cifra10' (did you mean 'cifar10'?)", "digits", "module:function"]),
        ("my_photos/", ["unknown data set 'my_photos/'", "the path of a folder"]),
        ("no_such_module_here:load", ["'no_such_module_here:load' could not be loaded", "ModuleNotFoundError"]),
        ("json:no_such_function", ["'json:no_such_function' could not be loaded", "AttributeError"]),
    ],
)
def test_check_refuses_data_that_are_not_there(
    data: str, named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD + f"data: {data}\n")
    assert mobile_space(path).data == data  # it may be read elsewhere, where the data are not
    with pytest.raises(InputError) as caught:
        check_space(path, check_data_name)
    assert str(caught.value).startswith(f"{path}:13: data: ")
    for word in named:
        assert word in str(caught.value)
    path.write_text(GOOD.replace("stride: 2", "strides: 2") + f"data: {data}\n")
    with pytest.raises(InputError) as caught:
        check_space(path, check_data_name)
    assert [line.split(":")[1] for line in str(caught.value).splitlines()] == ["9", "13"]


def test_check_takes_data_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    path = tmp_path / "mine.yaml"
    for data in ("cifar10", "photos", str(tmp_path / "photos"), "json:loads"):
        path.write_text(GOOD + f"data: {data}\n")
        assert check_space(path, check_data_name).data == data
    assert check_space("digits", check_data_name) == mobile_space("digits")


def test_of_a_file_of_another_kind_only_the_first_problems_are_told(tmp_path: Path) -> None:
    told = problems(GOOD + "".join(f"other{number}: 1\n" for number in range(200)), tmp_path)
    assert len(told) == 31
    assert told[-1] == " and 170 more"
