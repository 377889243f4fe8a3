"""Documented objects out of python source, read as syntax trees and never imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from llm.curation import markup
from llm.curation.base import DocumentedObject
from llm.curation.exports import Namespace, namespace, public_names
from llm.curation.packages import ModuleFile

MAX_SUMMARY_CHARS = 240

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Found:
    """A documented definition before its public name is known; `owner` is its class's path."""

    module: str
    owner: str
    leaf: str
    kind: str
    signature: str
    doc: str
    file: ModuleFile


def read_objects(
    files: Iterable[ModuleFile], advance: Callable[[], object] = lambda: None
) -> list[DocumentedObject]:
    """Every public documented function, class, method and property of the files, by public name.

    One object appears once, however often it is re-exported; of two with one name the longer documentation
    is kept. `advance` is called after each file, to show progress.
    """
    found: list[Found] = []
    namespaces: dict[str, Namespace] = {}
    for file in files:
        text = file.read()
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError):
            advance()  # a template or a file for another python: nothing to quote from it
            continue
        namespaces[file.name] = namespace(file, tree)
        found += _definitions(file, tree.body, "")
        if "add_docstr" in text or "add_newdoc" in text:
            found += _attached(file, tree)
        advance()
    names = public_names(namespaces)
    best: dict[str, DocumentedObject] = {}
    for one in found:
        named = _named(one, names)
        if named is not None and (named.name not in best or len(best[named.name].doc) < len(named.doc)):
            best[named.name] = named
    return [best[name] for name in sorted(best)]


def _definitions(file: ModuleFile, body: Iterable[ast.stmt], owner: str) -> Iterator[Found]:
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            nested = [*node.body, *node.orelse]
            yield from _definitions(file, nested, owner)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            doc = ast.get_docstring(node, clean=False)
            if doc and not node.name.startswith("_"):
                kind = _function_kind(node, owner)
                if kind:
                    signature = "" if kind == "property" else _signature(node, skip_first=bool(owner))
                    yield Found(file.name, owner, node.name, kind, signature, doc, file)
        elif isinstance(node, ast.ClassDef):
            path = f"{owner}.{node.name}" if owner else node.name
            doc = ast.get_docstring(node, clean=False)
            if doc and not node.name.startswith("_"):
                yield Found(file.name, owner, node.name, "class", _constructor(node), doc, file)
            yield from _definitions(file, node.body, path)


def _function_kind(node: Function, owner: str) -> str:
    names = [ast.unparse(d.func if isinstance(d, ast.Call) else d) for d in node.decorator_list]
    if any(n.endswith((".setter", ".deleter", "overload")) for n in names):
        return ""
    if any(n.endswith("property") for n in names):
        return "property"
    return "method" if owner else "function"


def _signature(node: Function, *, skip_first: bool) -> str:
    """Names and defaults, without annotations: short enough to quote."""
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in node.decorator_list)
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    parts = [_argument(a, d) for a, d in zip(positional, defaults, strict=True)]
    if skip_first and not static:
        parts = parts[1:]
    if given.vararg:
        parts.append(f"*{given.vararg.arg}")
    elif given.kwonlyargs:
        parts.append("*")
    parts += [_argument(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        parts.append(f"**{given.kwarg.arg}")
    return f"({', '.join(parts)})"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return argument.arg if default is None else f"{argument.arg}={ast.unparse(default)}"


def _constructor(node: ast.ClassDef) -> str:
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return _signature(child, skip_first=True)
    return ""


def _attached(file: ModuleFile, tree: ast.Module) -> Iterator[Found]:
    """Documentation attached by a call: `add_docstr(torch.abs, "...")` and the like."""
    for statement in tree.body:
        value = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
        if not isinstance(value, ast.Call) or len(value.args) < 2:
            continue
        called = ast.unparse(value.func).rpartition(".")[2].lstrip("_")
        bound = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if called in {"add_docstr", "add_docstr_all"}:
            doc = _constant(value.args[1])
            if isinstance(bound, ast.Name):
                name = f"{file.name}.{bound.id}"
            elif called == "add_docstr_all":
                name = f"torch.Tensor.{_constant(value.args[0])}"
            else:
                name = ast.unparse(value.args[0])
        elif called == "add_newdoc":
            owner, last = _constant(value.args[1]), value.args[2] if len(value.args) > 2 else None
            if isinstance(last, ast.Tuple) and len(last.elts) == 2:
                name, doc = f"numpy.{owner}.{_constant(last.elts[0])}", _constant(last.elts[1])
            else:
                name, doc = f"numpy.{owner}", _constant(last)
        else:
            continue
        if doc and not any(part.startswith("_") for part in name.split(".")):
            prefix, _, leaf = name.rpartition(".")
            kind = (
                "method"
                if prefix.rpartition(".")[2][:1].isupper() or prefix == "numpy.ndarray"
                else "function"
            )
            # an attached name is already the public one: an empty module says so
            yield Found("", prefix, leaf, kind, "", doc, file)


def _constant(node: ast.expr | None) -> str:
    """The text of a literal; sums are joined and `.format(...)` and other wrappers looked through."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _constant(node.left) + _constant(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _constant(node.func.value)
    return ""


def _named(found: Found, names: Mapping[tuple[str, str], str]) -> DocumentedObject | None:
    """The object under its public name with its documentation taken apart; None when it has no such name."""
    if found.module:
        top = (found.owner or found.leaf).partition(".")
        public = names.get((found.module, top[0]))
        if public is None:
            return None
        name = f"{public}{top[1]}{top[2]}" + (f".{found.leaf}" if found.owner else "")
    else:
        name = f"{found.owner}.{found.leaf}"
    if any(part.startswith("_") for part in name.split(".")):
        return None
    attached, text = markup.split_signature(markup.plain(found.doc), found.leaf)
    parts = markup.sections(text)
    signature = found.signature or attached
    if len(signature) > 200:
        signature = ""
    return DocumentedObject(
        name=name,
        kind=found.kind,
        signature=signature,
        doc=text.strip(),
        summary=_tidy(markup.summary(text, MAX_SUMMARY_CHARS)),
        parent=name.rpartition(".")[0],
        group=found.file.group,
        package=found.file.package,
        parameters=markup.parameters(text, parts),
        returns=_tidy(markup.returns(text, parts)),
    )


def _tidy(text: str) -> str:
    """First letter large, a full stop at the end: no description may be told from another by its form."""
    text = re.sub(r"\s+([.,;:])(?=\s|$)", r"\1", text).strip().rstrip(":;,")
    if not text:
        return ""
    if text[-1] not in ".!?":
        text += "."
    return text[0].upper() + text[1:]
