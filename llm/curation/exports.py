"""Under which public name does a user find what a private module defines? Answered from syntax alone."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llm.curation.packages import ModuleFile


@dataclass(slots=True)
class Namespace:
    """Names of one module: defined here, imported from elsewhere (name -> module, name there), starred."""

    defined: set[str] = field(default_factory=set)
    imported: dict[str, tuple[str, str]] = field(default_factory=dict)
    starred: list[str] = field(default_factory=list)
    exported: tuple[str, ...] | None = None


def namespace(file: ModuleFile, tree: ast.Module) -> Namespace:
    """What the top level of a module binds, without running it."""
    found = Namespace()
    for node in _top_level(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.defined.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(file, node)
            for alias in node.names:
                if alias.name == "*":
                    found.starred.append(origin)
                else:
                    found.imported[alias.asname or alias.name] = (origin, alias.name)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.defined.add(target.id)
                    if target.id == "__all__" and isinstance(node.value, (ast.List, ast.Tuple)):
                        texts = [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
                        found.exported = tuple(text for text in texts if isinstance(text, str))
    return found


def public_names(namespaces: Mapping[str, Namespace]) -> dict[tuple[str, str], str]:
    """For each definition (module, name), the shortest dotted name without an underscore part.

    Re-exports are followed through any number of modules; a definition nobody can reach publicly is absent.
    """
    best: dict[tuple[str, str], str] = {}
    for module in sorted(namespaces):
        if any(part.startswith("_") for part in module.split(".")):
            continue
        for name, origin in _visible(namespaces, module, frozenset()).items():
            if name.startswith("_"):
                continue
            definition = _resolve(namespaces, *origin)
            # only within one package: `from os import path` does not make it part of this module
            if definition is None or definition[0].partition(".")[0].strip("_") != module.partition(".")[0]:
                continue
            candidate = f"{module}.{name}"
            current = best.get(definition)
            if current is None or _rank(candidate, definition) < _rank(current, definition):
                best[definition] = candidate
    return best


def _rank(name: str, definition: tuple[str, str]) -> tuple[int, bool, bool, int, str]:
    """Shortest path first; among equals the defined name, not an alias, and the place of definition."""
    renamed = name.rpartition(".")[2] != definition[1]
    return name.count("."), renamed, name != ".".join(definition), len(name), name


def _visible(
    namespaces: Mapping[str, Namespace], module: str, seen: frozenset[str]
) -> dict[str, tuple[str, str]]:
    """Every name of a module, starred imports included, and the module that binds it."""
    here = namespaces.get(module)
    if here is None or module in seen:
        return {}
    found: dict[str, tuple[str, str]] = {}
    for starred in here.starred:
        there = namespaces.get(starred)
        names = _visible(namespaces, starred, seen | {module})
        for name, origin in names.items():
            exported = there.exported if there is not None else None
            if name in exported if exported is not None else not name.startswith("_"):
                found[name] = origin
    found.update({name: (module, name) for name in here.imported})
    found.update({name: (module, name) for name in here.defined})
    return found


def _resolve(namespaces: Mapping[str, Namespace], module: str, name: str) -> tuple[str, str] | None:
    """The module that defines a name, by following imports; None when it comes from outside."""
    for _ in range(12):
        here = namespaces.get(module)
        if here is None:
            return None
        if name in here.defined:
            return module, name
        if name in here.imported:
            module, name = here.imported[name]
            continue
        for starred in here.starred:
            there = namespaces.get(starred)
            if there is not None and (name in there.defined or name in there.imported):
                module = starred
                break
        else:
            return None
    return None


def _origin(file: ModuleFile, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = file.name.split(".")
    base = parts if file.is_package else parts[:-1]
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


def _top_level(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
    """Statements of a module, also those under `if` and `try`."""
    for node in body:
        yield node
        if isinstance(node, ast.If):
            yield from _top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _top_level([*node.body, *(s for h in node.handlers for s in h.body), *node.orelse])
