"""The Python subset: which syntax, names and attributes a program may have, and the normal form of its text.

The tree is checked against white lists before anything runs; what is not listed is refused. Does not run programs and does not know
which scope binds a name.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import warnings
from collections.abc import Callable, Iterator

from arc_submit.programs.interface import ProgramError, Refusal
from arc_submit.programs.python.input_type import InputType, input_type, is_list_type
from arc_submit.programs.python.names import (
    LIBRARY,
    NUMPY_NAMES,
    dotted_name,
    is_for_types,
    is_known_import,
    parameters_of,
    resolve_imports,
)

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH, MAX_BRACKETS = 20_000, 5_000, 60, 60
_MOST_BEHIND = 30  # lines behind the last function at which a text may be cut
MAX_INT_BITS = 256  # of a number in the text
ENTRY = "transform"  # the function that a program defines

_ALLOWED: tuple[type[ast.AST], ...] = (
    *(ast.FunctionDef, ast.Return, ast.Assign, ast.AugAssign, ast.For, ast.While, ast.If, ast.Expr, ast.Pass),
    *(ast.Break, ast.Continue, ast.Delete, ast.Assert, ast.Raise, ast.Try, ast.ExceptHandler, ast.Global, ast.Nonlocal),
    *(ast.NamedExpr, ast.Yield, ast.YieldFrom),
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
    ),
    *(ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_AT_THE_TOP = (ast.FunctionDef, ast.Assign)
# What Python calls the statements that are refused.
_WORDS: dict[type[ast.AST], str] = {
    ast.ClassDef: "class",
    ast.Match: "match",
    ast.With: "with",
    ast.AsyncFunctionDef: "async def",
    ast.AsyncFor: "async for",
    ast.AsyncWith: "async with",
    ast.Await: "await",
    ast.TryStar: "except*",
}
_DECORATORS = ("functools.cache", "functools.lru_cache")
_TYPING_NAMES = frozenset(("List", "Tuple", "Dict", "Set", "FrozenSet", "Optional", "Union", "Any", "Callable", "Iterable", "Sequence"))
_TYPES = ("list", "dict", "tuple", "set", "frozenset")  # in the name of a type, such as Grid = list[list[int]]
# Width and digits of at most two figures: a format makes no long text.
_FORMAT = re.compile(r"[<>^=]?[-+ ]?0?\d{0,2}(\.\d{1,2})?[bdefgosxX%]?")


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


EXCEPTIONS = _names(
    "ArithmeticError AssertionError AttributeError Exception IndexError KeyError LookupError NameError NotImplementedError "
    "OverflowError RuntimeError StopIteration TypeError ValueError ZeroDivisionError"
)
BUILTINS = EXCEPTIONS | _names(
    "abs all any bin bool callable chr dict divmod enumerate filter float frozenset hex int isinstance iter len list map max min next "
    "oct ord pow print range repr reversed round set slice sorted str sum tuple type zip"
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
    "unravel_index ravel_multi_index gcd lcm isnan select"
)
NUMPY_TYPES = _names("int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp int_ float32 float64 float_ bool_ ndarray integer")
NUMPY_CONSTANTS = _names("newaxis inf nan pi")
ARRAY_PROPERTIES = _names("shape size ndim T dtype flat")
ARRAY_METHODS = _names(
    "sum max min any all mean argmax argmin copy astype flatten ravel reshape transpose tolist nonzero repeat sort argsort cumsum "
    "cumprod prod clip round fill item dot squeeze swapaxes std var take diagonal trace"
)
OTHER_PROPERTIES = _names("maxlen start step stop")
CONTAINER_METHODS = _names(
    "append extend insert remove pop clear index count sort reverse copy get keys values items setdefault update popitem add "
    "discard union intersection difference symmetric_difference issubset issuperset isdisjoint intersection_update "
    "difference_update symmetric_difference_update split join replace strip startswith endswith upper lower isdigit find lstrip rstrip "
    "rfind title capitalize isalpha isalnum isnumeric isspace isupper islower zfill ljust rjust center splitlines partition "
    "appendleft extendleft popleft rotate most_common elements subtract total fromkeys from_iterable cache_clear accumulate reduce"
)
ATTRIBUTES = NUMPY_FUNCTIONS | NUMPY_TYPES | NUMPY_CONSTANTS | ARRAY_PROPERTIES | ARRAY_METHODS | CONTAINER_METHODS | OTHER_PROPERTIES
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
    as_list = entry is not None and (
        input_type(tree, entry) is InputType.LIST or any(is_list_type(one) for one in _type_of_input(tree, entry))
    )
    _strip(tree)
    resolve_imports(tree, BUILTINS)
    _keep_statements(tree, lambda node: not isinstance(node, ast.Import | ast.ImportFrom))
    if entry is not None and as_list:
        entry.args.args[0].annotation = ast.Name("list", ast.Load())
    _check_nodes(tree)
    _check_names(tree)
    if entry is None:
        raise ProgramError(Refusal.SYNTAX, f"no function; a program defines {ENTRY}(grid)")
    return tree


def definitions_of(text: str) -> str:
    """A program without what stands beside its definitions: imports of types or unknown modules, calls, examples of use.

    A line behind the last function that Python cannot read, such as prose or an example that the answer's end cuts, is left out with what
    follows. Any other text that is no program stays as it is.
    """
    tree = _tree_of(text)
    if tree is None:
        text = _without_cut_end(text)
        tree = _tree_of(text)
    if tree is None:
        return text

    def is_kept(node: ast.stmt) -> bool:
        return isinstance(node, ast.FunctionDef | ast.Assign | ast.AnnAssign) or (is_known_import(node) and not is_for_types(node))

    # A class that the program uses stays, so that the refusal names it.
    used = {name for node in tree.body if is_kept(node) for name in _names_in_code(node)}
    kept = [node for node in tree.body if is_kept(node) or (isinstance(node, ast.ClassDef) and node.name in used)]
    # Decorators stand above their function or class.
    parts = [(part, "@" * (part is not node)) for node in kept for part in (*getattr(node, "decorator_list", ()), node)]
    return "\n".join(mark + (ast.get_source_segment(text, part) or "") for part, mark in parts)


def _tree_of(text: str) -> ast.Module | None:
    """The tree of a text, unchecked but for its size; None where it is no program."""
    if len(text) > MAX_CHARACTERS:
        return None
    try:
        _check_brackets(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
        _check_size(tree)
    except (SyntaxError, ValueError, MemoryError, RecursionError, ProgramError):
        return None
    return tree


def _without_cut_end(text: str) -> str:
    """The longest beginning of a text that is a program and ends behind its last function, or the text where there is none."""
    begins = [found.start() for found in re.finditer(r"^(?=[^\s)\]}])", text, re.MULTILINE)]
    last = max((begin for begin in begins if text.startswith(("def ", "class ", "@"), begin)), default=-1)
    if last < 0 or not re.search(rf"^def[ \t]+{ENTRY}\b", text, re.MULTILINE):
        return text
    behind = [begin for begin in begins if begin > last][:_MOST_BEHIND]
    return next((text[:begin] for begin in reversed(behind) if _tree_of(text[:begin]) is not None), text)


def _names_in_code(tree: ast.AST) -> Iterator[str]:
    """The names in a tree, but for those in annotations."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, ast.Name):
            yield node.id
        annotations = [getattr(node, name, None) for name in ("annotation", "returns")]
        left.extend(child for child in ast.iter_child_nodes(node) if not any(child is one for one in annotations))


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
    """Remove annotations, names of types, docstrings and other constants that stand as a statement."""
    typing = _TYPING_NAMES - bound_names(tree)

    def is_kept(node: ast.stmt) -> bool:
        match node:
            case ast.AnnAssign(value=None) | ast.Expr(value=ast.Constant()):
                return False
            case ast.Assign(value=ast.Subscript(value=ast.Name(id=name)) | ast.Name(id=name)):
                return name not in typing and not (isinstance(node.value, ast.Subscript) and name in _TYPES and node in tree.body)
        return True

    _keep_statements(tree, is_kept)
    for node in ast.walk(tree):
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, [_without_annotation(one) for one in block])
        if isinstance(node, ast.arg):
            node.annotation = node.type_comment = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None


_BLOCKS = ("body", "orelse", "finalbody")


def _keep_statements(tree: ast.Module, is_kept: Callable[[ast.stmt], bool]) -> None:
    """Leave out statements; a block that needs one gets `pass`."""
    for node in list(ast.walk(tree)):
        for name in _BLOCKS:
            block = getattr(node, name, None)
            if isinstance(block, list) and block:
                kept: list[ast.stmt] = [one for one in block if is_kept(one)]
                if not kept and not isinstance(node, ast.Module) and (name == "body" or isinstance(node, ast.Try)):
                    kept = [ast.copy_location(ast.Pass(), node)]
                setattr(node, name, kept)


def _type_of_input(tree: ast.Module, entry: ast.FunctionDef) -> list[ast.expr]:
    """The annotation of the input; where it is a name that the program gives to a type, that type."""
    found = [one.annotation for one in entry.args.args[:1] if one.annotation]
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                found = [value if isinstance(one, ast.Name) and one.id == name else one for one in found]
    return found


def _without_annotation(node: ast.stmt) -> ast.stmt:
    if not isinstance(node, ast.AnnAssign) or node.value is None:
        return node
    return ast.copy_location(ast.Assign([node.target], node.value), node)


def _check_nodes(tree: ast.Module) -> None:
    for statement in tree.body:
        if isinstance(statement, _ALLOWED) and not isinstance(statement, _AT_THE_TOP):
            raise _forbidden(statement, "at the top of a program only functions and constants are defined")
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise _forbidden(node, f"{_WORDS.get(type(node), type(node).__name__)} is not part of the language")
        match node:
            case ast.FunctionDef(decorator_list=decorators):
                if any(dotted_name(one.func if isinstance(one, ast.Call) else one) not in _DECORATORS for one in decorators):
                    raise _forbidden(node, "decorators other than lru_cache and cache are not part of the language")
                _check_parameters(node)
            case ast.Lambda():
                _check_parameters(node)
            case ast.Constant(value=value):
                if not (value is None or value is Ellipsis or isinstance(value, bool | int | float | str)):
                    raise _forbidden(node, f"constants of type {type(value).__name__} are not part of the language")
                if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
                    raise ProgramError(Refusal.SYNTAX, f"line {node.lineno}: a number of more than {MAX_INT_BITS} bits")
            case ast.Attribute(ctx=context):
                if not isinstance(context, ast.Load):
                    raise _forbidden(node, "attributes cannot be assigned")
            case ast.FormattedValue(conversion=conversion, format_spec=spec):
                if conversion not in (-1, ord("r"), ord("s")) or not _is_short_format(spec):
                    raise _forbidden(node, "this format of a text is not part of the language")
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=last):
                if any(isinstance(one, ast.Yield | ast.YieldFrom) for part in (*body, *handlers, *orelse, *last) for one in ast.walk(part)):
                    raise _forbidden(node, "yield within a try statement is not part of the language")


def _check_parameters(node: ast.FunctionDef | ast.Lambda) -> None:
    names = parameters_of(node.args)
    if len(set(names)) < len(names):
        raise ProgramError(Refusal.SYNTAX, f"line {node.lineno}: a function has the same parameter twice")


def _is_short_format(spec: ast.expr | None) -> bool:
    match spec:
        case None | ast.JoinedStr(values=[]):
            return True
        case ast.JoinedStr(values=[ast.Constant(value=str(text))]):
            return _FORMAT.fullmatch(text) is not None
    return False


def _forbidden(node: ast.AST, reason: str) -> ProgramError:
    return ProgramError(Refusal.FORBIDDEN, f"line {getattr(node, 'lineno', 1)}: {reason}")


def bound_names(tree: ast.AST) -> set[str]:
    """All names that a tree binds anywhere: functions, parameters, variables."""
    names = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                names.add(name)
            case ast.Name(id=name, ctx=context) if not isinstance(context, ast.Load):
                names.add(name)
            case ast.Global(names=declared) | ast.Nonlocal(names=declared):
                names.update(declared)
    return names


def _check_name(name: str) -> None:
    if name in NUMPY_NAMES or name.startswith("__") or not name.isascii():
        raise ProgramError(Refusal.FORBIDDEN, f"the name {name!a} cannot be defined")


def _check_names(tree: ast.Module) -> None:
    bound = bound_names(tree)
    for name in sorted(bound):
        _check_name(name)
    whole = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # Functions of modules, each with the names before its dots.
    library = {id(one) for node in ast.walk(tree) if isinstance(node, ast.expr) and dotted_name(node) in LIBRARY for one in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in library:
            continue
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


def input_of(tree: ast.Module) -> InputType:
    """What the program of a tree that `parse` gave gets as its input."""
    entry = entry_of(tree)
    return InputType.LIST if any(one.annotation for one in entry.args.args[:1]) else input_type(tree, entry)


def takes_list(tree: ast.Module) -> bool:
    """Whether a tree that `parse` gave is of a program whose input is always a list of lists."""
    return input_of(tree) is InputType.LIST


def normal_form(text: str) -> str:
    """The text that equal programs share: without comments, annotations, imports and unused functions, with names by their order.

    Raises:
        ProgramError: SYNTAX or FORBIDDEN.
    """
    tree = parse(text)
    entry = entry_of(tree)
    # What a call names by a keyword keeps its name: which function it calls is not known before the program runs.
    keywords = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword)}
    if None in keywords:  # ** of a dictionary may name any parameter
        keywords |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    modules = {
        dotted_name(node).partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.expr) and dotted_name(node) in LIBRARY
    }
    bound = bound_names(tree) - BUILTINS - keywords - modules
    # From behind: a function that only an unused function calls is unused too.
    while True:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef) or node is entry or node.name in used]
        if kept == tree.body:
            break
        tree.body = list(kept)
    free = (one for one in map("v{}".format, itertools.count(1)) if one not in keywords)
    new = {} if keywords & {entry.name, ENTRY} else {entry.name: ENTRY}
    for node in _in_order(tree):
        match node:
            case ast.FunctionDef(name=str(name)) | ast.ExceptHandler(name=str(name)) | ast.arg(arg=name) | ast.Name(id=name) if (
                name in bound
            ):
                if name not in new:
                    new[name] = next(free)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                new |= {name: next(free) for name in names if name in bound and name not in new}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=str(name)) | ast.ExceptHandler(name=str(name)):
                node.name = new.get(name, name)
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                node.names = [new.get(name, name) for name in names]
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
