"""Modules beside a config file: found from any folder, separate for each folder, `sys.path` unchanged."""

from __future__ import annotations

import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from act2see.errors import ConfigError
from act2see.tools.plugins import find_tool
from act2see.tools.runtime.local_modules import import_beside


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = list(sys.path), {m for m in sys.modules if not m.startswith("_beside_")}
    yield
    # The modules have names of their own, so other code cannot import them.
    left = {m for m in sys.modules if not m.startswith("_beside_")} - before[1]
    assert sys.path == before[0]
    assert not [m for m in left if m.partition(".")[0] in ("mytool", "helper", "mypackage")]


def write(folder: Path, **files: str) -> str:
    """Write Python files by name; `__` in a name separates a folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(folder)


def test_two_folders_have_a_module_of_the_same_name(tmp_path: Path) -> None:
    one = write(tmp_path / "one", mytool="from helper import WORD\n", helper="WORD = 1\n")
    two = write(tmp_path / "two", mytool="import helper\nWORD = helper.WORD\n", helper="WORD = 2\n")
    assert (import_beside("mytool", one).WORD, import_beside("mytool", two).WORD) == (1, 2)
    assert import_beside("mytool", one) is import_beside("mytool", one)
    with pytest.raises(ModuleNotFoundError, match="No module named 'mytool'"):
        import_beside("mytool", str(tmp_path))
    with pytest.raises(ModuleNotFoundError):
        import_beside("mytool", None)


DEPTH = """
from . import near
from .deep.inner import D
import mypackage.deep.inner
from mypackage import near as same
from mypackage.near import N

assert mypackage.deep.inner.D == D and same is near and near.N == N

def late():
    import mypackage.late as m
    from mypackage.late import L
    assert m.L == L
    return L
"""
PACKAGE = {
    "mypackage__depth": DEPTH,
    "mypackage__near": "N = 1\n",
    "mypackage__deep__inner": "D = 2\n",
    "mypackage__late": "import json, helper\nL = helper.WORD\n",
    "helper": "WORD = 'late'\n",
}


@pytest.mark.parametrize("init", [True, False])
def test_a_package_imports_its_own_modules_at_load_time_and_later(tmp_path: Path, init: bool) -> None:
    folder = write(tmp_path, **PACKAGE)
    if init:
        write(tmp_path, mypackage____init__="TOP = 1\n", mypackage__deep____init__="")
    module = import_beside("mypackage.depth", folder)
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(module.late()))
    thread.start()
    thread.join()
    assert said == ["late"]


def test_standard_and_installed_modules_are_not_hidden(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        json="raise AssertionError\n",
        mytool="""
import json, numpy.linalg
from act2see.tools.base import ToolOptions
assert numpy.linalg.norm
OK = json.dumps(1)
""",
        numpy__data="",
        act2see__notes="",
    )
    assert import_beside("mytool", folder).OK == "1"
    assert import_beside("act2see.tools.base", folder) is sys.modules["act2see.tools.base"]
    assert import_beside("json", None) is sys.modules["json"]


def test_a_module_that_python_finds_too_is_loaded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, spaced_tool="WORD = 1\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(folder)
        assert import_beside("spaced_tool", folder).__name__ == "spaced_tool"
    del sys.modules["spaced_tool"]


def test_classes_name_their_module(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
import dataclasses, typing
from act2see.tools.base import ToolOptions

class Options(ToolOptions):
    size: typing.Annotated[int, "pixels"] = 3

@dataclasses.dataclass
class Point:
    x: int
    def later(self) -> Point: ...
"""
    module = import_beside("mytool", write(tmp_path, mytool=text))
    assert module.Options(size="4").size == 4
    assert pickle.loads(pickle.dumps(module.Point(1))) == module.Point(1)
    assert get_type_hints(module.Point.later)["return"] is module.Point


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_at_all\n", "No module named 'nowhere_at_all'"),
        ("from helper import missing\n", r"cannot import name 'missing' from 'helper' \("),
        ("import helper.inner\n", "No module named 'helper.inner'; 'helper' is not a package"),
        ("1 +\n", "invalid syntax"),
        ("raise SystemError('x\\ny')\n", "imported: x$"),
        ("import sys\nsys.exit(3)\n", "imported: 3$"),
        ("WORD = 1\n", "has no attribute 'Tool'"),
    ],
)
def test_errors_use_plain_module_names(tmp_path: Path, text: str, message: str) -> None:
    folder = write(tmp_path, mytool=text, helper="")
    with pytest.raises(ConfigError, match=message) as e:
        find_tool("mytool:Tool", folder=folder)
    assert "_beside_" not in str(e.value)
    assert str(e.value).startswith("tool 'mytool:Tool' cannot be imported: ")


@pytest.mark.parametrize(
    "name", ["nowhere:Tool", "mypackage.nowhere:Tool", ":Tool", "..:Tool", "mypackage:Tool", ".mytool:Tool"]
)
def test_a_missing_module(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path, mytool="", mypackage__x="")
    with pytest.raises(ConfigError, match="cannot be imported") as e:
        find_tool(name, folder=folder)
    assert "\n" not in str(e.value)


def test_a_module_written_after_a_failed_import_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf" \(searched {tmp_path} first\)"):
        find_tool("mytool:Tool", folder=str(tmp_path))
    write(tmp_path, mytool="class Tool: pass\n")
    assert find_tool("mytool:Tool", folder=str(tmp_path)).__name__ == "Tool"
