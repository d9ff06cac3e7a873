"""The direction of imports, as drawn in server/README.md, and what each room must not touch."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lyceum import errors

ROOT = Path(__file__).parent.parent
LYCEUM = ROOT / "server" / "lyceum"
PLUGIN = ROOT / "plugin" / "cln_lyceum.py"

# Each room may import itself and the rooms named beside it; those all stand above it.
ROOMS = {
    "errors": "",
    # core
    "l402": "errors",
    # shapes
    "money": "",
    "bolt11": "money",
    "quote": "money",
    "tariff": "money",
    "ports": "l402 money quote tariff",
    "accounts": "",
    "books": "ports",
    "wire": "errors money ports",
    "parameters": "errors money",
    # policy
    "router": "money ports",
    "till": "errors l402 money quote tariff ports books",
    "purse": "errors l402 money ports books",
    "ensemble": "errors money ports router",
    # adapters
    "ledger": "errors ports books",
    "node": "errors l402 ports quote tariff",
    "lazy": "errors bolt11 ports quote node",
    "engine": "errors ports",
    "library": "errors ports",
    "replies": "errors ports wire",
    "upstream": "errors ports wire replies",
    "peers": "errors l402 ports wire router ensemble replies",
    # faces
    "config": "errors money ports",
    "tables": "",
    "csvfile": "",
    "app": "errors tariff ports wire",
    "devnet": "errors node",
    "cln_lyceum": "errors l402 tariff accounts ports books wire parameters till purse ensemble ledger node lazy peers",
    "host": "errors ports config engine library upstream",
    "shelf": "errors ports config tables engine library host",
    "service": "errors ports purse ensemble node peers config app host",
    "demo": "errors node tables devnet cln_lyceum",
    "cli": "errors node config tables csvfile shelf service demo",
    "__main__": "cli",
}

# Each library may be imported by the rooms named beside it; a library that is not here, by none.
LIBRARIES = {
    "pymacaroons": "l402",
    "pyln": "node lazy devnet cln_lyceum",
    "sqlite3": "ledger devnet library",
    "httpx2": "replies upstream peers host shelf service cln_lyceum",
    "llama_cpp": "engine",
    "numpy": "engine library",
    "pypdf": "library",
    "huggingface_hub": "shelf",
    "tomlkit": "shelf",
    "jinja2": "engine",
    "jsonschema": "engine",
    "starlette": "app service",
    "anyio": "app",
    "uvicorn": "app service",
    "bolt11": "devnet",
    "bech32": "devnet",
    "coincurve": "devnet",
}


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    found = {PLUGIN.stem: PLUGIN}
    for path in LYCEUM.rglob("*.py"):
        parts = path.relative_to(LYCEUM.parent).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(name: str) -> Iterator[str]:
    """What a module imports anywhere in its text, functions included; of ours, down to the module."""
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively: the tables here would miss it"
            source = node.module or ""
            below = [f"{source}.{alias.name}" for alias in node.names]
            yield from [entry if entry in modules() else source for entry in below]


def room(name: str) -> str:
    return name.removeprefix("lyceum.").split(".")[0]


def is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] in {"lyceum", PLUGIN.stem}


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.LyceumError)]
MODULES = sorted(name for name in modules() if name != "lyceum")


def test_every_room_is_in_the_table() -> None:
    """A new module takes its place in the table before it can be imported anywhere."""
    assert {room(name) for name in MODULES} <= set(ROOMS)


def test_the_table_points_up_only() -> None:
    """No room may import one that is drawn below it, so there are no cycles between rooms."""
    names = list(ROOMS)
    wrong = [(name, other) for at, name in enumerate(names) for other in ROOMS[name].split() if other not in names[:at]]
    assert wrong == []


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_its_room_may(name: str) -> None:
    """Of ours: its own room and those in the table."""
    allowed = {room(name), *ROOMS[room(name)].split()}
    assert {room(entry) for entry in imports(name) if is_ours(entry)} <= allowed


@pytest.mark.parametrize("name", MODULES)
def test_a_library_stays_in_its_rooms(name: str) -> None:
    """Of others: the standard library without sqlite3, and the libraries in the table."""
    others = {entry.split(".")[0] for entry in imports(name) if not is_ours(entry)}
    free = sys.stdlib_module_names - set(LIBRARIES)
    assert {other for other in others - free if room(name) not in LIBRARIES.get(other, "").split()} == set()


def test_the_package_itself_imports_nothing() -> None:
    """`import lyceum.l402` must not pull in a server: the package's own file runs first."""
    assert list(imports("lyceum")) == []


def test_the_plugin_never_reaches_a_model_or_a_web_server() -> None:
    """C output on fd 1 would corrupt the node's protocol; nothing the plugin imports leads there."""
    reached, ahead = set(), {PLUGIN.stem}
    while ahead:
        name = ahead.pop()
        reached.add(name)
        if is_ours(name):
            parents = {name.rsplit(".", depth)[0] for depth in range(name.count(".") + 1)}
            ahead |= ({*imports(name), *parents}) - reached
    assert {"lyceum.till", "lyceum.peers", "lyceum.l402.verify"} <= reached
    tops = {entry.split(".")[0] for entry in reached}
    assert tops & {"llama_cpp", "starlette", "uvicorn", "numpy", "anyio"} == set()
    assert {entry for entry in reached if room(entry) in {"engine", "app", "service"}} == set()


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in {"money", "till", "purse", "ledger"}])
def test_no_floats_near_money(name: str) -> None:
    """Neither `/` nor `float(...)`: half a millisatoshi does not exist, and rounding is stated."""
    tree = ast.parse(modules()[name].read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "float"]
    divisions = [node for node in ast.walk(tree) if isinstance(node, ast.Div)]
    assert calls + divisions == []


def test_the_plugin_folder_holds_one_module() -> None:
    """It becomes sys.path[0] of the plugin, where a second file could shadow a library."""
    assert [path.name for path in PLUGIN.parent.glob("*.py")] == [PLUGIN.name]


def test_the_errors_are_the_tree_that_is_drawn() -> None:
    """Every class stands in the docstring's tree under its base, and nothing else does."""
    drawn, above = {}, {0: "LyceumError"}
    for line in (errors.__doc__ or "").splitlines():
        entry = re.match(r"([│ ]*)[├└]── (\w+)", line)
        if entry:
            depth = len(entry[1]) // 4 + 1
            drawn[entry[2]] = above[depth - 1]
            above[depth] = entry[2]
    assert drawn == {kind.__name__: kind.mro()[1].__name__ for kind in KINDS if kind is not errors.LyceumError}


def test_an_error_survives_the_rpc() -> None:
    """Each class has an rpc_code of its own, from which the caller's side rebuilds it."""
    assert len({kind.rpc_code for kind in KINDS}) == len(KINDS)
    rebuilt = [errors.from_rpc(kind.rpc_code, "why") for kind in KINDS]
    assert [(type(error), str(error)) for error in rebuilt] == [(kind, "why") for kind in KINDS]
    assert errors.from_rpc(-1, "not ours") is None
