"""The house stands: imports go down the floors only, folders only hand on names, nothing loads code from data.

Read from the syntax tree, so imports inside functions and under TYPE_CHECKING count as well, and so do module names in
strings (lazy imports).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"

FLOORS = {
    "errors": 0, "progress": 0, "recipe": 0, "records": 0, "runfolder": 0, "version": 0,
    "data": 1, "nets": 1, "objectives": 1,
    "training": 2,
    "evaluation": 3, "generation": 3,
    "tasks": 4,
    "audit": 5, "explanation": 5, "export": 5, "search": 5,
    "comparison": 6, "server": 6,
    "cli": 7, "studio": 7,
    "rung": 8, "__main__": 9,  # the Python API hands on names of every floor; `python -m rung` starts the command line
}  # fmt: skip

UNSAFE_MODULES = {"cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "shelve"}
UNSAFE_CALLS = {"compile", "eval", "exec", "torch.load", "torch.save", "yaml.load", "yaml.unsafe_load"}

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}


def room(module: str) -> str:
    """`rung.data.text` is in room `data`; the package itself is called `rung`."""
    return module.split(".")[1] if "." in module else module


def imports(tree: ast.AST, module: str) -> Iterator[tuple[str, int]]:
    """Every module of Rung that `module` imports or names in a string, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name.split(".")[0] == "rung")
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield ".".join([*module.split(".")[: -node.level], node.module or ""]).strip("."), node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rung":
            if node.module == "rung":  # `from rung import data` reaches the room, not the package's own names
                yield from ((f"rung.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield str(node.module), node.lineno
        elif isinstance(node, ast.Constant) and node.value in MODULES and node.value != "rung":
            yield str(node.value), node.lineno


def misplaced(source: str, module: str) -> list[str]:
    """What `module` imports from its own floor's other rooms or from above."""
    own_room, found = room(module), []
    for target, line in imports(ast.parse(source), module):
        other = room(target) if room(target) in FLOORS else "rung"
        neighbours_on_the_ground = FLOORS[own_room] == FLOORS[other] == 0
        if other != own_room and not neighbours_on_the_ground and FLOORS[other] >= FLOORS[own_room]:
            found.append(f"{module}:{line} ({own_room}, floor {FLOORS[own_room]}) imports {target}")
    return found


def more_than_names(source: str) -> list[str]:
    """The statements of a folder's `__init__` that do more than handing on names.

    Allowed: a docstring, imports, plain constants, and `__getattr__` / `__dir__`, which hand on names lazily.
    """
    found = []
    for node in ast.parse(source).body:
        match node:
            case ast.Expr(ast.Constant(str())) | ast.Import() | ast.ImportFrom() | ast.Assign() | ast.AnnAssign():
                allowed = not any(isinstance(part, ast.Call | ast.Lambda) for part in ast.walk(node))
            case ast.If(ast.Name("TYPE_CHECKING")):
                allowed = all(isinstance(part, ast.Import | ast.ImportFrom) for part in node.body)
            case ast.FunctionDef(name="__getattr__" | "__dir__"):
                allowed = True
            case _:
                allowed = False
        if not allowed:
            found.append(f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}")
    return found


def unsafe(source: str) -> list[str]:
    """Whatever could run code that came with data."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names) if UNSAFE_MODULES & {alias.name.split(".")[0] for alias in names}:
                found.append(ast.unparse(node))
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] in UNSAFE_MODULES:
                found.append(ast.unparse(node))
            case ast.ImportFrom(module=str(name), names=names) if {
                f"{name}.{alias.name}" for alias in names
            } & UNSAFE_CALLS:
                found.append(ast.unparse(node))
            case ast.Call(function) if ast.unparse(function) in UNSAFE_CALLS:
                found.append(ast.unparse(node))
            case ast.keyword("allow_pickle", value) if ast.unparse(value) != "False":
                found.append("allow_pickle=" + ast.unparse(value))
    return found


def test_every_module_has_a_floor() -> None:
    homeless = [module for module in MODULES if room(module) not in FLOORS]
    assert not homeless, f"give these a floor in FLOORS (and in ARCHITECTURE.md): {homeless}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str) -> None:
    assert misplaced(MODULES[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_a_folder_only_hands_on_names(module: str) -> None:
    assert more_than_names(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", MODULES)
def test_no_code_comes_from_data(module: str) -> None:
    assert unsafe(MODULES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rung.data.text", "import rung.training.loop"),
        ("rung.data.text", "from rung.nets.decoder import Decoder"),
        ("rung.data.text", "def late():\n    from rung import cli"),
        ("rung.data.text", "from ..nets import decoder"),
        ("rung.data.text", "import rung"),
        ("rung.training.loop", "home = 'rung.cli.main'"),
        ("rung.errors", "from rung.data import text"),
        ("rung.cli.main", "from rung import train"),
    ],
)
def test_a_misplaced_import_is_found(module: str, source: str) -> None:
    assert len(misplaced(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rung.data.text", "import torch\nfrom rung.errors import DataError\nfrom rung.data.files import read"),
        ("rung.records", "from rung.runfolder import write_text"),
        ("rung.cli.main", "from .console import Panel\nfrom rung.tasks import language_modelling"),
        ("rung.training.loop", "name = 'rung.json'"),
    ],
)
def test_a_proper_import_is_let_through(module: str, source: str) -> None:
    assert misplaced(source, module) == []


@pytest.mark.parametrize("source", ["def help_me(): ...", "log = make_log()", "class A: ...", "for x in y: pass"])
def test_code_in_an_init_is_found(source: str) -> None:
    assert len(more_than_names(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "from torch import load",
        "def f(x):\n    return eval(x)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_an_unsafe_loader_is_found(source: str) -> None:
    assert len(unsafe(source)) == 1


@pytest.mark.parametrize("source", ["model.eval()", "np.load(path, allow_pickle=False)", "torch.compile(net)"])
def test_a_harmless_call_is_let_through(source: str) -> None:
    assert unsafe(source) == []
