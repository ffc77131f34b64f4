"""Modules beside a config file: `use: "depth:Depth"`, with `depth.py` in the file's folder.

They are found there whatever the working folder, the command or the server. `sys.path` is left alone, since
it holds for the whole process: a module gets a name of its own by its folder, so two folders may each have a
`mytool.py`. Within the folder, modules import one another as scripts do, by their plain names, when they are
loaded and later: each is given an `__import__` that looks in its folder first. The standard library always
comes before it.

A module that Python would find at the same file by itself (the folder is the script's own, or the package is
installed) is imported as usual, under its plain name.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

_PREFIX = "_beside_"


def import_beside(name: str, folder: str | None) -> ModuleType:
    """The module of this dotted name: the one in `folder` if there is one, else the one that Python finds.

    Raises:
        ImportError: There is no such module, or the name is that of a file.
        Exception: Whatever the module raises when it is imported.
    """
    if "/" in name or "\\" in name or name.startswith(".") or name.endswith(".py"):
        module = os.path.basename(name).removesuffix(".py") or "odd"
        raise ImportError(f"{name!r} is the name of a file: name the module, as in {module}:Class")
    if folder is None or not _is_there(name, folder) or _is_found_anyway(name, folder):
        return importlib.import_module(name)
    return importlib.import_module(f"{_root(folder)}.{name}")


def plain_names(text: str) -> str:
    """An error's text with the names of modules as their author knows them."""
    for name in [m for m in sys.modules if m.startswith(_PREFIX) and "." not in m]:
        text = text.replace(f"{name}.", "")
    return text


def _is_there(name: str, folder: str) -> bool:
    """Whether the folder has a module of this dotted name. Nothing is imported for it."""
    importlib.invalidate_caches()  # the file may be new
    places: Sequence[str] | None = [folder]
    spec: ModuleSpec | None = None
    for part in name.split("."):
        spec = PathFinder.find_spec(part, places) if places and part else None
        if spec is None:
            return False
        places = spec.submodule_search_locations
    return spec is not None and spec.loader is not None


def _is_found_anyway(name: str, folder: str) -> bool:
    top = name.partition(".")[0]
    try:
        found, here = importlib.util.find_spec(top), PathFinder.find_spec(top, [folder])
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as `__main__`
        return False
    return found is not None and here is not None and _files(found) == _files(here)


def _files(spec: ModuleSpec) -> list[str]:
    """Where a module is: its file, or the folders of a package without one."""
    if spec.has_location and spec.origin:
        return [os.path.realpath(spec.origin)]
    return [os.path.realpath(folder) for folder in spec.submodule_search_locations or ()]


def _root(folder: str) -> str:
    """The name of the package that stands for the folder and holds its modules."""
    folder = os.path.realpath(folder)
    root = f"{_PREFIX}{hashlib.blake2b(os.fsencode(folder), digest_size=6).hexdigest()}"
    if root not in sys.modules:
        spec = ModuleSpec(root, None, is_package=True)
        spec.submodule_search_locations = [folder]
        sys.modules[root] = importlib.util.module_from_spec(spec)
    if not any(isinstance(f, _Finder) for f in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    return root


class _Finder(MetaPathFinder):
    """Finds the modules of such packages, and no others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(_PREFIX):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    """Runs a module with its folder's `__import__`: `exec` takes builtins from the module's globals."""

    def exec_module(self, module: ModuleType) -> None:
        root = module.__name__.partition(".")[0]
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": partial(_import, root)}
        super().exec_module(module)


def _import(
    root: str,
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """`__import__` for the modules of a folder."""
    top = name.partition(".")[0]
    if level or not _is_of_folder(root, top):
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    module = importlib.import_module(f"{root}.{name}")
    if not fromlist:
        return sys.modules[f"{root}.{top}"]  # as `import a.b` binds `a`
    # A name imported from a package may be a module that is not loaded yet.
    return builtins.__import__(module.__name__, globals, locals, fromlist, 0)


def _is_of_folder(root: str, top: str) -> bool:
    if top in sys.stdlib_module_names:
        return False
    here = PathFinder.find_spec(f"{root}.{top}", sys.modules[root].__path__)
    if here is None or here.loader is not None:
        return here is not None
    # A folder without `__init__.py` is a package too, unless Python finds another one.
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        return False
