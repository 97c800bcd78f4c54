"""The Python subset: which syntax, names and attributes a program may have, and the normal form of its text.

The tree is checked against white lists before anything runs; what is not listed is refused. Does not run programs.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import warnings

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.input_type import is_list_type, uses_as_list

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH, MAX_BRACKETS = 20_000, 5_000, 60, 60
MAX_INT_BITS = 256  # of a number in the text
ENTRY = "transform"  # the function that a program defines

_ALLOWED: tuple[type[ast.AST], ...] = (
    *(ast.FunctionDef, ast.Return, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Expr, ast.Pass),
    *(ast.Break, ast.Continue, ast.Delete, ast.Assert, ast.Import),
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp),
    *(ast.GeneratorExp, ast.Compare, ast.Call, ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List),
    *(
        ast.JoinedStr,
        ast.FormattedValue,
        ast.Tuple,
        ast.Slice,
        ast.Module,
        ast.arguments,
        ast.arg,
        ast.keyword,
        ast.comprehension,
        ast.alias,
    ),
    *(ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_AT_THE_TOP = (ast.FunctionDef, ast.Import, ast.Assign)
NUMPY_NAMES = ("np", "numpy")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILTINS = _names(
    "abs all any bool chr dict divmod enumerate filter float frozenset int isinstance iter len list map max min next ord pow print "
    "range reversed round set sorted str sum tuple zip"
)
NUMPY_FUNCTIONS = _names(
    "zeros ones full empty zeros_like ones_like full_like empty_like array asarray copy arange eye identity linspace reshape ravel "
    "transpose flip fliplr flipud rot90 roll concatenate stack vstack hstack dstack column_stack tile repeat pad split array_split "
    "hsplit vsplit squeeze expand_dims swapaxes moveaxis resize delete insert append broadcast_to atleast_2d where nonzero argwhere "
    "flatnonzero unique any all sum prod max min amax amin argmax argmin mean median std var count_nonzero bincount cumsum cumprod "
    "diff sort argsort lexsort isin intersect1d union1d setdiff1d array_equal array_equiv ptp searchsorted abs absolute sign mod "
    "remainder floor_divide divide add subtract multiply minimum maximum clip logical_and logical_or logical_not logical_xor "
    "bitwise_and bitwise_or bitwise_xor not_equal equal less greater less_equal greater_equal power floor ceil round rint sqrt "
    "square dot matmul outer kron triu tril diag diagonal trace fill_diagonal ix_ meshgrid indices ndindex ndenumerate take "
    "unravel_index ravel_multi_index gcd lcm isnan"
)
NUMPY_TYPES = _names("int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp int_ float32 float64 float_ bool_ ndarray integer")
NUMPY_CONSTANTS = _names("newaxis inf nan pi")
ARRAY_PROPERTIES = _names("shape size ndim T dtype flat")
ARRAY_METHODS = _names(
    "sum max min any all mean argmax argmin copy astype flatten ravel reshape transpose tolist nonzero repeat sort argsort cumsum "
    "cumprod prod clip round fill item dot squeeze swapaxes std var take diagonal trace"
)
CONTAINER_METHODS = _names(
    "append extend insert remove pop clear index count sort reverse copy get keys values items setdefault update popitem add "
    "discard union intersection difference symmetric_difference issubset issuperset isdisjoint intersection_update "
    "difference_update split join replace strip startswith endswith upper lower isdigit find"
)
ATTRIBUTES = NUMPY_FUNCTIONS | NUMPY_TYPES | NUMPY_CONSTANTS | ARRAY_PROPERTIES | ARRAY_METHODS | CONTAINER_METHODS
_REAL_BUILTINS = frozenset(dir(builtins))


def parse(text: str) -> ast.Module:
    """The tree of a program, checked against the white lists.

    Annotations are removed, but for `list` at the parameter of a program that takes its input as a list of lists.

    Raises:
        ProgramError: SYNTAX or FORBIDDEN.
    """
    if len(text) > MAX_CHARACTERS:
        raise ProgramError(Refusal.SYNTAX, f"a program of {len(text)} characters, at most {MAX_CHARACTERS} are allowed")
    _check_brackets(text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        raise ProgramError(Refusal.SYNTAX, f"line {error.lineno or 1}: {error.msg}") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ProgramError(Refusal.SYNTAX, str(error) or "nested too deeply") from None
    _check_size(tree)
    entry = entry_of(tree) if any(isinstance(node, ast.FunctionDef) for node in tree.body) else None
    as_list = entry is not None and (uses_as_list(tree, entry) or any(is_list_type(one.annotation) for one in entry.args.args[:1]))
    _strip(tree)
    if entry is not None and as_list:
        entry.args.args[0].annotation = ast.Name("list", ast.Load())
    _check_nodes(tree)
    _check_names(tree)
    if entry is None:
        raise ProgramError(Refusal.SYNTAX, f"no function; a program defines {ENTRY}(grid)")
    return tree


def definitions_of(text: str) -> str:
    """A program without what stands beside its definitions: other imports than numpy, calls, examples of use.

    A text that is no program stays as it is.
    """
    if len(text) > MAX_CHARACTERS:
        return text
    try:
        _check_brackets(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        _check_size(tree)
    except (SyntaxError, ValueError, MemoryError, RecursionError, ProgramError):
        return text
    kept = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.Assign | ast.AnnAssign) or _imports_numpy(node)]
    # Decorators stand above their function and stay, so that the program is refused for them.
    parts = [(part, "@" * (part is not node)) for node in kept for part in (*getattr(node, "decorator_list", ()), node)]
    return "\n".join(mark + (ast.get_source_segment(text, part) or "") for part, mark in parts)


def _imports_numpy(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import) and all(one.name == "numpy" for one in node.names)


def _check_brackets(text: str) -> None:
    """Refuse deep nesting before the parser meets it; brackets within texts and comments count too."""
    depth = 0
    for character in text:
        if character in "([{":
            depth += 1
            if depth > MAX_BRACKETS:
                raise ProgramError(Refusal.SYNTAX, f"more than {MAX_BRACKETS} open brackets")
        elif character in ")]}":
            depth = max(0, depth - 1)


def _check_size(tree: ast.AST) -> None:
    nodes, depth = 0, 0
    level: list[ast.AST] = [tree]
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ProgramError(Refusal.SYNTAX, f"more than {MAX_NODES} parts or {MAX_DEPTH} levels of nesting")
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _strip(tree: ast.Module) -> None:
    """Remove annotations, docstrings and other constants that stand as a statement."""
    for node in ast.walk(tree):
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, [_without_annotation(one) for one in block if not isinstance(one, ast.AnnAssign) or one.value])
                if name == "body" and isinstance(node, ast.FunctionDef | ast.For | ast.While | ast.If) and not node.body:
                    node.body = [ast.Pass()]
        if isinstance(node, ast.arg):
            node.annotation = node.type_comment = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.Module | ast.FunctionDef | ast.For | ast.While | ast.If):
            node.body = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
            if not node.body and not isinstance(node, ast.Module):
                node.body = [ast.Pass()]


def _without_annotation(node: ast.stmt) -> ast.stmt:
    if not isinstance(node, ast.AnnAssign) or node.value is None:
        return node
    return ast.copy_location(ast.Assign([node.target], node.value), node)


def _check_nodes(tree: ast.Module) -> None:
    for statement in tree.body:
        if not isinstance(statement, _AT_THE_TOP):
            raise _forbidden(statement, "at the top of a program only functions and constants are defined")
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise _forbidden(node, f"{type(node).__name__} is not part of the language")
        match node:
            case ast.FunctionDef(decorator_list=[_, *_]):
                raise _forbidden(node, "decorators are not part of the language")
            case ast.Import(names=names):
                if any(one.name != "numpy" or one.asname not in (None, *NUMPY_NAMES) for one in names):
                    raise _forbidden(node, "the only import is numpy as np")
            case ast.Constant(value=value):
                if not (value is None or value is Ellipsis or isinstance(value, bool | int | float | str)):
                    raise _forbidden(node, f"constants of type {type(value).__name__} are not part of the language")
                if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
                    raise ProgramError(Refusal.SYNTAX, f"line {node.lineno}: a number of more than {MAX_INT_BITS} bits")
            case ast.Attribute(ctx=context):
                if not isinstance(context, ast.Load):
                    raise _forbidden(node, "attributes cannot be assigned")
            case ast.FormattedValue(conversion=conversion, format_spec=spec):
                if conversion != -1 or spec is not None:
                    raise _forbidden(node, "formats of texts are not part of the language")
            case ast.arguments(posonlyargs=[_, *_]):
                raise ProgramError(Refusal.FORBIDDEN, "positional-only parameters are not part of the language")


def _forbidden(node: ast.AST, reason: str) -> ProgramError:
    return ProgramError(Refusal.FORBIDDEN, f"line {getattr(node, 'lineno', 1)}: {reason}")


def bound_names(tree: ast.AST) -> set[str]:
    """All names that a tree binds anywhere: functions, parameters, variables."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.arg(arg=name):
                names.add(name)
            case ast.Name(id=name, ctx=context) if not isinstance(context, ast.Load):
                names.add(name)
    return names


def _check_names(tree: ast.Module) -> None:
    bound = bound_names(tree)
    for name in sorted(bound):
        if name in NUMPY_NAMES or name.startswith("__") or not name.isascii():
            raise ProgramError(Refusal.FORBIDDEN, f"the name {name!a} cannot be defined")
    whole = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in bound:
            if node.id in NUMPY_NAMES:
                if id(node) not in whole:
                    raise _forbidden(node, "numpy is no value")
            elif node.id not in BUILTINS:
                if node.id in _REAL_BUILTINS or node.id.startswith("_") or not node.id.isascii():
                    raise _forbidden(node, f"the name {node.id!a} is not part of the language")
                raise ProgramError(Refusal.VALUE, f"line {node.lineno}: the name {node.id!a} is not defined")
        elif isinstance(node, ast.Attribute):
            of_numpy = isinstance(node.value, ast.Name) and node.value.id in NUMPY_NAMES
            allowed = NUMPY_FUNCTIONS | NUMPY_TYPES | NUMPY_CONSTANTS if of_numpy else ATTRIBUTES
            if node.attr not in allowed:
                raise _forbidden(node, f"the attribute {node.attr!a} is not part of the language")
        elif isinstance(node, ast.keyword) and node.arg is not None and (node.arg.startswith("_") or not node.arg.isascii()):
            raise _forbidden(node, f"the keyword {node.arg!a} is not part of the language")


def entry_of(tree: ast.Module) -> ast.FunctionDef:
    """The function that turns the input into the output: `transform`, or one that gets this name, or else the last one."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in reversed(tree.body):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name(id=other)) if name == ENTRY and other in functions:
                return functions[other]
    return functions.get(ENTRY) or list(functions.values())[-1]


def takes_list(tree: ast.Module) -> bool:
    """Whether a tree that `parse` gave is of a program whose input is a list of lists; it is an array otherwise."""
    parameters = entry_of(tree).args.args
    return bool(parameters) and parameters[0].annotation is not None


def normal_form(text: str) -> str:
    """The text that equal programs share: without comments, annotations, imports and unused functions, with names by their order.

    Raises:
        ProgramError: SYNTAX or FORBIDDEN.
    """
    tree = parse(text)
    entry = entry_of(tree)
    # What a call names by a keyword keeps its name: which function it calls is not known before the program runs.
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    bound = bound_names(tree) - BUILTINS - keywords
    # From behind: a function that only an unused function calls is unused too.
    while True:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef) or node is entry or node.name in used]
        kept = [node for node in kept if not isinstance(node, ast.Import)]
        if kept == tree.body:
            break
        tree.body = list(kept)
    free = (one for one in map("v{}".format, itertools.count(1)) if one not in keywords)
    new = {} if keywords & {entry.name, ENTRY} else {entry.name: ENTRY}
    for node in _in_order(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.arg(arg=name) | ast.Name(id=name) if name in bound:
                if name not in new:
                    new[name] = next(free)
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name):
                node.name = new.get(name, name)
            case ast.arg(arg=name):
                node.arg = new.get(name, name)
            case ast.Name(id=name):
                node.id = "np" if name in NUMPY_NAMES else new.get(name, name)
    try:
        return ast.unparse(tree)
    except ValueError as error:  # of texts within an f-string
        raise ProgramError(Refusal.SYNTAX, str(error)) from None


def _in_order(tree: ast.AST) -> list[ast.AST]:
    """The nodes in the order of the text; `ast.walk` goes level by level."""
    nodes: list[ast.AST] = []
    left = [tree]
    while left:
        node = left.pop()
        nodes.append(node)
        left.extend(reversed(list(ast.iter_child_nodes(node))))
    return nodes


def size(text: str) -> int:
    """The number of syntactic parts of a program's normal form.

    Raises:
        ProgramError: SYNTAX or FORBIDDEN.
    """
    return sum(not isinstance(node, ast.expr_context | ast.operator | ast.cmpop) for node in ast.walk(ast.parse(normal_form(text))))
