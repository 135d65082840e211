"""The shape of the source tree: docstrings, sizes, the way imports point, and what nobody may use."""

import ast
import importlib
import re
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for folder in ("producer", "workers", "console") for path in (ROOT / folder).rglob("*.py"))
MODULES.append(ROOT / "cli.py")
LUA_FILES = sorted((ROOT / "producer" / "wire" / "lua").glob("*.lua"))
MOST_LINES, MOST_FUNCTION_LINES, MOST_LUA_LINES = 300, 45, 45
NO_KEY_FIRST = {"PUBLISH", "XINFO", "XGROUP"}
"""Commands whose first argument is a channel or a subcommand."""

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
PICKLING = {"DefaultSerializer", "PickleSerializer", "SpawnWorker"}
"""What of RQ pickles, whatever it is told."""

UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}

each_module = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
each_lua_file = pytest.mark.parametrize("path", LUA_FILES, ids=lambda path: path.name)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(tree: ast.Module) -> Iterator[str]:
    """The modules that are imported anywhere in a file, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_walk_finds_the_tree() -> None:
    assert len(MODULES) > 40
    assert {path.stem for path in LUA_FILES} >= {"complete", "enqueue", "expire"}


@each_module
def test_a_module_begins_with_its_docstring(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert text.startswith('"""')
    assert re.match(r'"""\S.*[.:;](""")?$', text.splitlines()[0]), "its first line is a sentence"


@each_module
def test_a_module_is_short_and_so_are_its_functions(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < MOST_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines < MOST_FUNCTION_LINES, f"{node.name} has {lines} lines"


@each_module
def test_nobody_imports_the_command_line(path: Path) -> None:
    assert not [name for name in imports_of(tree_of(path)) if name.split(".")[0] == "cli"]


@each_module
def test_nobody_imports_the_tests(path: Path) -> None:
    assert not [name for name in imports_of(tree_of(path)) if name.split(".")[0] in ("tests", "pytest")]


@each_module
def test_nothing_that_could_run_data_as_code_is_used(path: Path) -> None:
    tree = tree_of(path)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]

    assert not [name for name in imports_of(tree) if name.split(".")[0] in UNSAFE_MODULES]
    assert not [call.id for call in calls if isinstance(call, ast.Name) and call.id in UNSAFE_CALLS]
    assert not [call.attr for call in calls if isinstance(call, ast.Attribute) and call.attr in {"eval", "exec"}]


def takes_serializer(what: Any) -> bool:
    is_error = isinstance(what, type) and issubclass(what, Exception)  # which have no signature
    return callable(what) and not is_error and "serializer" in signature(what).parameters


@each_module
def test_rq_is_told_at_every_call_not_to_pickle(path: Path) -> None:
    """RQ pickles by default; our subclasses of its queue, job and worker leave callers no choice."""
    tree = tree_of(path)
    named = {
        alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rq" and node.module
        for alias in node.names
    }
    asked = {name for name, what in named.items() if takes_serializer(what)}

    whole = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in whole if name.split(".")[0] == "rq"], "its names are imported one by one"
    assert not named.keys() & PICKLING
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        function = ast.unparse(call.func)
        assert function not in asked or words.get("serializer") == "JSONSerializer", f"{function} in line {call.lineno}"
        assert function.partition(".")[0] not in asked or "." not in function, f"{function} in line {call.lineno}"


@each_lua_file
def test_a_script_is_short_and_names_its_keys_and_arguments(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    header = "\n".join(line for line in lines[: next(n for n, line in enumerate(lines) if not line.startswith("--"))])

    assert len([line for line in lines if line and not line.startswith("--")]) < MOST_LUA_LINES
    assert re.search(r"KEYS\[1\] \w+", header)
    assert re.search(r"ARGV\[1\] \w+", header)
    assert "Returns " in header


@each_lua_file
def test_a_script_touches_only_keys_that_it_is_given(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    made_up = [
        call for call in re.findall(r"redis\.call\('(\w+)', (?:'|ARGV|[^,)]*\.\.)", text) if call not in NO_KEY_FIRST
    ]

    assert made_up == [], "a cluster must see every key in KEYS"
    assert text.count("redis.call(") >= 2
