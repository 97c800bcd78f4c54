"""Which scope of a program binds a name, and which function of which module a name means.

After `resolve_imports` a program has no import: what it imported has its one full name, such as collections.deque. Does not know what the
functions do.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arc_submit.programs.interface import ProgramError, Refusal

NUMPY_NAMES = ("np", "numpy")
# What programs may import beside numpy, by module.
MODULES: dict[str, frozenset[str]] = {
    module: frozenset(names.split())
    for module, names in {
        "bisect": "bisect bisect_left bisect_right insort",
        "collections": "Counter defaultdict deque",
        "copy": "copy deepcopy",
        "functools": "cache cmp_to_key lru_cache partial reduce",
        "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
        "itertools": "accumulate chain combinations combinations_with_replacement compress count cycle dropwhile filterfalse groupby "
        "islice pairwise permutations product repeat starmap takewhile zip_longest",
        "math": "atan atan2 ceil comb copysign cos degrees dist e exp fabs factorial floor gcd hypot inf isclose isfinite isinf isnan "
        "isqrt lcm log log10 log2 nan perm pi pow prod radians sin sqrt tan tau trunc",
        "numpy.linalg": "norm",
        "numpy.lib.stride_tricks": "sliding_window_view",
        "operator": "add and_ eq floordiv ge gt itemgetter le lt mod mul ne or_ sub xor",
        "scipy.ndimage": "binary_closing binary_dilation binary_erosion binary_fill_holes binary_opening find_objects "
        "generate_binary_structure label",
        "sys": "maxsize",
    }.items()
}
# Modules that are there for annotations alone.
TYPING = ("typing", "__future__", "collections.abc", "numpy.typing")
_PACKAGES = ("scipy",)
# Names that programs use without an import; a name that the program binds comes first.
_WITHOUT_IMPORT = {
    name: f"{module}.{name}"
    for module, names in {
        "collections": "Counter defaultdict deque",
        "copy": "deepcopy",
        "functools": "lru_cache reduce",
        "itertools": "chain combinations groupby permutations product zip_longest",
        "heapq": "heappop heappush",
    }.items()
    for name in names.split()
}


def full_name(module: str, name: str) -> str:
    """The name of a function of a module in a program's normal form; short, and none that variables often have."""
    if name == "deepcopy":  # `copy` is a frequent name of a variable
        return name
    return f"{'np' + module[5:] if module.startswith('numpy') else module.rpartition('.')[2]}.{name}"


LIBRARY = frozenset(full_name(module, name) for module, names in MODULES.items() for name in names)
_ROOTS = {module.rpartition(".")[2]: module for module in MODULES if not module.startswith("numpy")} | dict.fromkeys(NUMPY_NAMES, "numpy")
_ROOTS["scipy"] = "scipy"


@dataclass(frozen=True)
class Scope:
    """The names that one function, comprehension or the top of a program binds.

    Attributes:
        names: that it binds.
        top: names that it declares as those of the top of the program.
        of_comprehension: a walrus within one binds a name outside of it.
    """

    names: frozenset[str]
    top: frozenset[str] = frozenset()
    of_comprehension: bool = False


def scope_of(body: ast.Module | ast.expr | Sequence[ast.stmt], parameters: Iterable[str] = ()) -> Scope:
    """The scope of a function's body or of the top of a program, without what functions within it bind."""
    names: set[str] = set(parameters)
    top: set[str] = set()
    outer: set[str] = set()
    left: list[ast.AST] = [body] if isinstance(body, ast.expr) else list(body.body if isinstance(body, ast.Module) else body)
    while left:
        node = left.pop()
        match node:
            case ast.FunctionDef(name=name, decorator_list=decorators):
                names.add(name)
                left += [*decorators, *node.args.defaults, *filter(None, node.args.kw_defaults)]
                continue
            case ast.Lambda():
                left += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
                continue
            case ast.comprehension():  # its targets are names of its own
                left += [node.iter, *node.ifs]
                continue
            case ast.Global():
                top.update(node.names)
            case ast.Nonlocal():
                outer.update(node.names)
            case ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.Name(id=name, ctx=context) if not isinstance(context, ast.Load):
                names.add(name)
        left.extend(ast.iter_child_nodes(node))
    if isinstance(body, ast.Module):
        names |= {name for node in ast.walk(body) if isinstance(node, ast.Global) for name in node.names}
    return Scope(frozenset(names - top - outer), frozenset(top))


def scope_of_comprehension(generators: Sequence[ast.comprehension]) -> Scope:
    """The scope that holds the targets of a comprehension."""
    stored = (node for one in generators for node in ast.walk(one.target))
    names = {node.id for node in stored if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    return Scope(frozenset(names), of_comprehension=True)


def depth_of(name: str, scopes: Sequence[Scope]) -> int | None:
    """How many scopes outside of the last one a name is bound; None where none binds it."""
    for depth, scope in enumerate(reversed(scopes)):
        if name in scope.top:
            return len(scopes) - 1 if name in scopes[0].names else None
        if name in scope.names:
            return depth
    return None


def dotted_name(node: ast.expr) -> str:
    """`a.b.c` of a chain of attributes of a name, the name of a name; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def is_known_import(node: ast.stmt) -> bool:
    """Whether a statement imports something of which the language has a part."""
    match node:
        case ast.Import(names=names):
            return all(_is_known_module(one.name) for one in names)
        case ast.ImportFrom(module=module, level=0):
            return module in TYPING or any(_is_known_module(f"{module}.{one.name}") for one in node.names) or _is_known_module(module or "")
    return False


def is_for_types(node: ast.stmt) -> bool:
    """Whether a statement imports names for annotations alone."""
    return isinstance(node, ast.ImportFrom) and node.module in TYPING


def _is_known_module(name: str) -> bool:
    return name in MODULES or name in TYPING or name in _PACKAGES or name == "numpy"


def resolve_imports(tree: ast.Module, known: frozenset[str]) -> None:
    """Give what a program imports its full name, and leave out the imports' effect; the statements stay.

    Args:
        tree: without annotations.
        known: names that are there without an import and come before those of modules.

    Raises:
        ProgramError: FORBIDDEN for a module or a function of one that is not part of the language.
    """
    _Resolver(known).resolve(tree)


class _Resolver(ast.NodeTransformer):
    def __init__(self, known: frozenset[str]):
        self.known = known
        self.scopes: list[Scope] = []
        self.imports: list[dict[str, str]] = []  # for each scope: what its imported names mean

    def resolve(self, tree: ast.Module) -> None:
        self._within(scope_of(tree), tree.body)

    def _within(self, scope: Scope, nodes: Sequence[ast.AST]) -> list[ast.AST]:
        """Nodes of one scope, resolved."""
        imports = _imports_of(nodes)
        for name, (_, node) in imports.items():
            if name in scope.names | scope.top:
                raise _forbidden(node, f"the name {name!a} is imported and bound in one function")
        self.scopes.append(Scope(scope.names | frozenset(imports), scope.top, scope.of_comprehension))
        self.imports.append({name: meaning for name, (meaning, _) in imports.items()})
        resolved = [self.visit(node) for node in nodes]
        self.scopes.pop()
        self.imports.pop()
        return resolved

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(one) for one in node.decorator_list]
        self._defaults(node.args)
        self._within(scope_of(node.body, parameters_of(node.args)), node.body)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._defaults(node.args)
        (node.body,) = self._within(scope_of(node.body, parameters_of(node.args)), [node.body])  # type: ignore[assignment]
        return node

    def _defaults(self, arguments: ast.arguments) -> None:
        arguments.defaults = [self.visit(one) for one in arguments.defaults]
        arguments.kw_defaults = [one and self.visit(one) for one in arguments.kw_defaults]

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> ast.AST:
        first = node.generators[0]
        first.iter = self.visit(first.iter)
        inner: list[ast.AST] = []
        for number, one in enumerate(node.generators):
            inner += [one.target, *([one.iter] if number else []), *one.ifs]
        inner += [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        new = dict(zip(map(id, inner), self._within(scope_of_comprehension(node.generators), inner), strict=True))
        for number, one in enumerate(node.generators):
            one.target = new[id(one.target)]  # type: ignore[assignment]
            one.iter = new[id(one.iter)] if number else one.iter  # type: ignore[assignment]
            one.ifs = [new[id(test)] for test in one.ifs]  # type: ignore[misc]
        if isinstance(node, ast.DictComp):
            node.key, node.value = new[id(node.key)], new[id(node.value)]  # type: ignore[assignment]
        else:
            node.elt = new[id(node.elt)]  # type: ignore[assignment]
        return node

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._reference(node) if isinstance(node.ctx, ast.Load) else node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if not dotted_name(node):
            return self.generic_visit(node)
        return self._reference(node)

    def _reference(self, node: ast.Name | ast.Attribute) -> ast.expr:
        """A name or a chain of attributes, the part that is of a module under its full name."""
        root, *attributes = dotted_name(node).split(".")
        meaning = self._meaning(root, bool(attributes))
        if meaning is None:
            return node
        path, rest = meaning, attributes
        while rest and path not in TYPING and not _is_function(path) and path != "numpy":
            path, rest = f"{path}.{rest[0]}", rest[1:]
        if path == "numpy" and ".".join(["np", *rest[:-1]]) in {one.rpartition(".")[0] for one in LIBRARY}:
            path, rest = ".".join(["numpy", *rest]), []
        if path == "numpy":
            return _chain("np", rest, node)
        if not _is_function(path):
            what = f"the module {path!a} is no value" if _is_known_module(path) else f"{path!a} is not part of the language"
            raise _forbidden(node, what)
        module, _, name = path.rpartition(".")
        if module == "numpy":
            return _chain("np", [name, *rest], node)
        first, *others = full_name(module, name).split(".")
        if any(first in scope.names and first not in imports for scope, imports in zip(self.scopes, self.imports, strict=True)):
            raise _forbidden(node, f"the name {first!a} has two meanings")
        return _chain(first, [*others, *rest], node)

    def _meaning(self, name: str, has_attributes: bool) -> str | None:
        """What a name stands for, as a path of modules; None for a variable, a built-in function or an undefined name."""
        depth = depth_of(name, self.scopes)
        if depth is not None:
            return self.imports[-1 - depth].get(name)
        if name in self.known:
            return None
        if name in NUMPY_NAMES:
            return "numpy"
        if has_attributes and name in _ROOTS:
            return _ROOTS[name]
        return _WITHOUT_IMPORT.get(name)


def parameters_of(arguments: ast.arguments) -> list[str]:
    """The names of all parameters of a function."""
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return [one.arg for one in every if one is not None]


def _is_function(path: str) -> bool:
    module, _, name = path.rpartition(".")
    return name in MODULES.get(module, ()) or (module == "numpy" and path not in MODULES)


def _chain(root: str, attributes: Sequence[str], node: ast.expr) -> ast.expr:
    made: ast.expr = ast.copy_location(ast.Name(root, ast.Load()), node)
    for name in attributes:
        made = ast.copy_location(ast.Attribute(made, name, ast.Load()), node)
    return made


def _imports_of(nodes: Sequence[ast.AST]) -> dict[str, tuple[str, ast.stmt]]:
    """What the imports of one scope bind, and where."""
    found: dict[str, tuple[str, ast.stmt]] = {}
    left = [node for node in nodes if isinstance(node, ast.stmt)]
    while left:
        node = left.pop(0)
        if isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_known_import(node):
            module = node.module if isinstance(node, ast.ImportFrom) else ", ".join(one.name for one in node.names)
            raise _forbidden(node, f"the import of {module or '.'!a} is not part of the language")
        match node:
            case ast.Import(names=names):
                for one in names:
                    path = one.name if one.asname else one.name.partition(".")[0]
                    found[one.asname or path] = (path, node)
            case ast.ImportFrom(module=module, names=names) if module not in TYPING:
                for one in names:
                    if one.name == "*":
                        raise _forbidden(node, "an import of * is not part of the language")
                    found[one.asname or one.name] = (f"{module}.{one.name}", node)
            case ast.ImportFrom(names=names):
                found |= {one.asname or one.name: (f"typing.{one.name}", node) for one in names}
            case _:
                blocks = [getattr(node, name, []) for name in ("body", "orelse", "finalbody")]
                blocks += [one.body for one in getattr(node, "handlers", [])]
                left = [*(one for block in blocks for one in block if isinstance(one, ast.stmt)), *left]
    return found


def _forbidden(node: ast.AST, reason: str) -> ProgramError:
    return ProgramError(Refusal.FORBIDDEN, f"line {getattr(node, 'lineno', 1)}: {reason}")
