"""Imports stand at the top of files, but where that would make a command wait for a package that it does not need."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import nas

ROOT = Path(nas.__file__).parent
SLOW = frozenset(
    [
        "torch",
        "torchvision",
        "ray",
        "optuna",
        "sklearn",
        "scipy",
        "pandas",
        "plotly",
        "dash",
        "dash_ag_grid",
        "PIL",
        "numpy",
        "onnx",
        "onnxruntime",
        "pyarrow",
        "sqlalchemy",
    ]
)
"""Packages that take noticeably long to import."""
OPTIONAL = frozenset(["pynvml", "mlflow", "kaleido", "choreographer", "IPython", "fsspec", "safetensors"])
"""Those that may be missing, or that one rare step needs."""
ELSEWHERE = {
    "nas": "importlib.metadata",  # whoever imports nas first may have files beside it that are called as what this imports
    "nas.cli": "nas.cli.app",  # the entry point: each verb's options are read there
    "nas.export.check": "model",  # the exported folder's own, in a process of its own
}
COMMAND_LINE = "nas.cli.app"


def module_name(path: Path) -> str:
    return ".".join(("nas", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_name(path): path for path in ROOT.rglob("*.py")}


def imported(node: ast.stmt) -> list[str]:
    """Modules that an import names; of a package those of its modules that are asked for."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        parts = [f"{node.module}.{alias.name}" for alias in node.names]
        return [part for part in parts if part in MODULES] or [node.module]
    return []


@functools.cache
def imports_of(module: str, in_functions: bool) -> tuple[tuple[int, str], ...]:
    """Lines and modules: imports at the top of a file, but for those for type checkers, or the ones within functions."""

    def walk(node: ast.AST, within: bool) -> Iterator[tuple[int, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import | ast.ImportFrom) and within is in_functions:
                yield from ((child.lineno, name) for name in imported(child))
            yield from walk(child, within or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return tuple(walk(ast.parse(MODULES[module].read_text(encoding="utf-8")), False))


@functools.cache
def loaded(module: str) -> frozenset[str]:
    """All of ours that importing a module imports, and the packages of others that it does."""
    found: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        if name in MODULES:
            left += [parent for parent in (name.rpartition(".")[0],) if parent]
            left += [each for _, each in imports_of(name, in_functions=False)]
    return frozenset(name if name in MODULES else name.partition(".")[0] for name in found)


def test_imports_within_functions_spare_a_start_something_slow() -> None:
    """In the command line they spare the start of every other verb something; elsewhere a slow package."""
    needless = []
    for module in MODULES:
        for line, name in imports_of(module, in_functions=True):
            package = name.partition(".")[0]
            if ELSEWHERE.get(module) == name:
                continue
            if name not in MODULES:
                spares = package in SLOW | OPTIONAL
            elif module.startswith("nas.cli."):
                spares = name not in loaded(COMMAND_LINE)
            else:
                spares = bool((loaded(name) - loaded(module)) & (SLOW | OPTIONAL))
            if not spares:
                needless.append(f"{module}:{line}: {name} can stand at the top of the file")
    assert not needless


def test_the_command_line_loads_nothing_slow() -> None:
    assert not loaded(COMMAND_LINE) & (SLOW | OPTIONAL)
