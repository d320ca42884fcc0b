"""The documentation holds all of it: public names, commands and pages. That its links lead somewhere the strict build shows."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

import nas
from nas.cli.app import app

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"


def test_reference_has_every_public_name_and_no_other() -> None:
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: nas\.(\w+)$", text, re.MULTILINE)) == set(nas.__all__)


def test_reference_has_every_command() -> None:
    text = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    shown = [name for name, command in get_command(app).commands.items() if not command.hidden]  # type: ignore[attr-defined]
    assert len(shown) > 10
    assert not [name for name in shown if not re.search(rf"`nas {name}\b", text)]


def test_every_page_is_in_the_navigation() -> None:
    navigation = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert len(pages) > 20
    assert not [page for page in pages if not re.search(rf"[ :]{re.escape(page)}$", navigation, re.MULTILINE)]


def test_readme_stays_short_and_shows_a_picture_that_is_there() -> None:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if not target.startswith("http")]
    assert "docs/images/front.png" in targets
    assert not [target for target in targets if not (PROJECT / target).exists()]


def test_files_that_contributing_names_are_there() -> None:
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:nas|tests|docs|benchmarks)/[\w/.]+)`", text) + re.findall(r"\]\((docs/[\w/.]+)", text)
    assert len([name for name in named if name.startswith("tests/toy_")]) == 5
    assert not [name for name in named if not (PROJECT / name).exists()]
