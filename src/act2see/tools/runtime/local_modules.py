"""Modules beside a config file: `use: "depth:Depth"`, with `depth.py` in the file's folder.

They are found there from any working folder, command or server. `sys.path` is not changed, because it applies
to the whole process. Instead, a module's full name contains a hash of its folder, so two folders may each
have a `mytool.py`. Modules of a folder import one another by their plain names, as scripts do, at load time
and later: each gets an `__import__` that searches its folder after the standard library and before all else.

A module that Python would find in the same file anyway (in the script's own folder, or in an installed
package) is imported as usual, under its plain name.
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
    """Import the module of a dotted name: the one in `folder` if it exists, else the one that Python finds.

    Args:
        name: The dotted name.
        folder: The folder to search first; None searches only where Python does.

    Raises:
        ImportError: The module does not exist, or the name is a file name.
        Exception: Any error that the module raises when it is imported.
    """
    if "/" in name or "\\" in name or name.startswith(".") or name.endswith(".py"):
        module = os.path.basename(name).removesuffix(".py") or "odd"
        raise ImportError(f"{name!r} is the name of a file: name the module, as in {module}:Class")
    if folder is None or not _is_in_folder(name, folder) or _is_found_anyway(name, folder):
        return importlib.import_module(name)
    return importlib.import_module(f"{_root(folder)}.{name}")


def plain_names(text: str) -> str:
    """Return an error's text with the plain names of modules, as their author wrote them."""
    roots = [name for name in sys.modules if name.startswith(_PREFIX) and "." not in name]
    for root in roots:
        text = text.replace(f"{root}.", "")
    return text


def _is_in_folder(name: str, folder: str) -> bool:
    """Return whether the folder has a module of this dotted name, without importing anything."""
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
    """Return whether Python finds the module in the same file without our help."""
    top = name.partition(".")[0]
    try:
        found = importlib.util.find_spec(top)
        local = PathFinder.find_spec(top, [folder])
    except (ImportError, ValueError):  # ValueError: a module without a spec, such as `__main__`
        return False
    return found is not None and local is not None and _files(found) == _files(local)


def _files(spec: ModuleSpec) -> list[str]:
    """Return the file of a module, or the folders of a package without `__init__.py`."""
    if spec.has_location and spec.origin:
        return [os.path.realpath(spec.origin)]
    return [os.path.realpath(folder) for folder in spec.submodule_search_locations or ()]


def _root(folder: str) -> str:
    """Return the name of the package that represents the folder, and create the package if needed."""
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
    """Finds modules of the packages that `_root` creates, and no others."""

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
    """Runs a module with its folder's `__import__`, by the `__builtins__` in the module's globals."""

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
    """Import a module for a module of the folder; the signature is that of `__import__`."""
    top = name.partition(".")[0]
    if level or not _takes_from_folder(root, top):
        return builtins.__import__(name, globals, locals, fromlist or (), level)
    module = importlib.import_module(f"{root}.{name}")
    if not fromlist:
        return sys.modules[f"{root}.{top}"]  # `import a.b` binds `a`
    # A name imported from a package may be a submodule that is not loaded yet: `__import__` loads it.
    return builtins.__import__(module.__name__, globals, locals, fromlist, 0)


def _takes_from_folder(root: str, top: str) -> bool:
    """Return whether a top-level name, imported in a module of the folder, means a module of the folder."""
    if top in sys.stdlib_module_names:
        return False
    local = PathFinder.find_spec(f"{root}.{top}", sys.modules[root].__path__)
    if local is None or local.loader is not None:
        return local is not None
    # A folder without `__init__.py` is a package too, unless Python finds another module of that name.
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        return False
