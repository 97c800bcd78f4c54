"""What a notebook's cells run: their Python calls with the texts that they are given, and the shell commands in them.

IPython's own transformer turns !, % and %% into calls. Cells are read and never run: a text that is computed is unknown. Does not know what
a command does.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

from arc_submit.kaggle.cell_values import UNKNOWN, Values
from arc_submit.kaggle.shell_commands import SHELLS, program_words, split_commands

_RUNNERS = {
    *("system", "popen", "run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput"),
    *("create_subprocess_shell", "create_subprocess_exec", "execv", "execvp", "execl", "execlp"),
    *("spawn", "spawnl", "spawnlp", "spawnv", "spawnvp"),
}
# Calls that call the first of their arguments, or `target`, with the others.
_CALLERS = {"partial", "submit", "map", "starmap", "imap", "apply", "apply_async", "to_thread", "run_in_executor", "Thread", "Process"}
_SHELL_MAGICS = ("bash", "sh", "script", "system", "sx", "!", "!!")
_PACKAGE_MAGICS = ("pip", "conda", "mamba", "micromamba", "uv")
_WRITES = ("writefile", "file")


@dataclass(frozen=True)
class Call:
    """A Python call.

    Attributes:
        name: with its module where the notebook imports it, such as "os.system".
        arguments: texts that the positional arguments may be; UNKNOWN for any other value.
        keywords: text of each keyword argument that is known, also of true and false.
    """

    name: str
    arguments: tuple[str, ...]
    keywords: Mapping[str, str]

    @property
    def function(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


@lru_cache(maxsize=1000)  # a check asks for the same cells many times, and changes no tree
def parse_cell(source: str) -> ast.Module | None:
    """A cell's Python with IPython's own commands as calls; None where it is not valid."""
    from IPython.core.inputtransformer2 import TransformerManager  # slow to import, and untyped

    try:
        return ast.parse(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]
    except (SyntaxError, ValueError):
        return None


class Notebook:
    """Reads the cells of a notebook in their order: what one cell imports or gives to a name is known in the next ones.

    Args:
        sources: of all code cells, because a function may be called in a later cell than the one that defines it.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._values = Values()
        self._values.bind_calls([tree for tree in map(parse_cell, sources) if tree])
        self._modules: dict[str, str] = {}  # what names stand for that are imported

    def read(self, source: str) -> tuple[list[Call], list[list[str]]]:
        """The calls and the shell commands of a cell, each command as its words without what only precedes it."""
        tree = parse_cell(source)
        if tree is None:
            lines = [match[1] for match in re.finditer(r"^\s*[!%]+(.*)", source, re.MULTILINE)]
            return [], [words for line in lines for words in split_commands(line)]
        self._modules |= dict(_imported(tree))
        self._values.read(tree)
        calls: list[Call] = []
        commands: list[list[str]] = []
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            call = self._call(node)
            if call.name.startswith("get_ipython()."):
                more_calls, more_commands = self._magic(call)
            elif call.name == "exec":
                more_calls, more_commands = self._read_all(call.arguments[:1])
            else:
                more_calls, more_commands = [call], list(self._started(call.function, node.args, node.keywords))
            calls += more_calls
            commands += more_commands
        for words in commands:
            if words and re.fullmatch(r"python[\d.]*", words[0]) and "-c" in words[:-1]:
                more_calls, more_commands = self.read(words[words.index("-c") + 1])
                calls += more_calls
                commands = [*commands, *more_commands]
        return calls, commands

    def _read_all(self, sources: Sequence[str]) -> tuple[list[Call], list[list[str]]]:
        """The calls and commands of texts that are Python."""
        read = [self.read(source) for source in sources if source != UNKNOWN]
        return [call for calls, _ in read for call in calls], [words for _, commands in read for words in commands]

    def _call(self, node: ast.Call) -> Call:
        arguments = tuple(text for one in node.args for text in (self._values.texts(one) or [UNKNOWN]))
        keywords = {}
        for one in node.keywords:
            truth = one.value.value if isinstance(one.value, ast.Constant) and isinstance(one.value.value, bool) else None
            texts = [str(truth)] if truth is not None else self._values.texts(one.value)
            if one.arg and texts:
                keywords[one.arg] = texts[0]
        return Call(self._name(node.func), arguments, keywords)

    def _name(self, function: ast.expr) -> str:
        """A function's name with the module that it is imported from; what holds IPython's own object is get_ipython()."""
        root, dot, rest = ast.unparse(function).partition(".")
        given = self._values.expressions(root)
        if dot and any(ast.unparse(one).endswith("get_ipython()") for one in given):
            root = "get_ipython()"
        return f"{self._modules.get(root, root)}{dot}{rest}"

    def _magic(self, call: Call) -> tuple[list[Call], list[list[str]]]:
        """What a line of IPython's own runs."""
        name, line, body = (*call.arguments, "", "", "")[:3]
        if call.function in ("system", "getoutput"):
            return [], self._shell_line(name)
        if call.function in ("run_line_magic", "magic"):
            name, line = (name, line) if call.function == "run_line_magic" else (*name.lstrip("%").split(maxsplit=1), "", "")[:2]
            line = f"{name} {line}" if name in _PACKAGE_MAGICS else line if name in _SHELL_MAGICS else ""
            return [], self._shell_line(line)
        if call.function != "run_cell_magic":
            return [], []
        if name == "script" or name in _SHELL_MAGICS:
            is_shell = name != "script" or not line or PurePosixPath(line.split()[0]).name in (*SHELLS, "env")
            return ([], list(split_commands(body))) if is_shell else self.read(body)
        if name in _WRITES and not line.endswith(".py"):
            return [], list(split_commands(body)) if line.endswith(".sh") else []
        return self.read(body) if name not in ("html", "javascript", "js", "latex", "markdown", "svg") else ([], [])

    def _shell_line(self, line: str) -> list[list[str]]:
        """The commands of a line in which IPython puts values for {name} and $name."""
        names = re.findall(r"\{(\w+)\}|\$\{?(\w+)", line)
        given = {name: self._values.texts(ast.Name(name)) for name in map("".join, names)}
        lines = [line]
        for name, texts in given.items():
            parts = [re.split(rf"\{{{name}\}}|\${name}\b", one) for one in lines]
            lines = [text.join(one) for one in parts for text in texts or [UNKNOWN]][:20]
        return [words for one in lines for words in split_commands(one)]

    def _started(self, function: str, arguments: Sequence[ast.expr], keywords: Sequence[ast.keyword]) -> Iterator[list[str]]:
        """The shell commands that a call starts."""
        named = {one.arg: one.value for one in keywords}
        if function in _CALLERS:
            called = named.get("target") or next(iter(arguments[:1]), None)
            given = named.get("args")
            rest = list(given.elts) if isinstance(given, ast.Tuple | ast.List) else list(arguments[1:])
            if isinstance(called, ast.Name | ast.Attribute):
                yield from self._started(self._name(called).rpartition(".")[2], rest, keywords)
            return
        if function.startswith("spawn") and len(arguments) > 1:  # the mode is first
            arguments = arguments[1:]
        if function in ("execl", "execlp", "spawnl", "spawnlp"):  # the file, then the words, of which the first is its name
            arguments = arguments[1:]
        first = arguments[0] if arguments else named.get("args") or named.get("cmd")
        if first is None:
            return
        words = self._values.words(first)
        if function in ("main", "pipmain", "pip_main"):
            yield from (["pip", *one] for one in words if one[:1] in (["install"], ["download"], ["wheel"]))
        if function not in _RUNNERS:
            return
        if not words and function.startswith(("exec", "spawn")) and len(arguments) > 1:
            words = self._values.words(arguments[1])
        for one in words:
            shell = len(one) > 2 and PurePosixPath(one[0]).name in SHELLS
            given_at = next((place for place, word in enumerate(one[1:-1], 1) if re.fullmatch(r"-\w*c", word)), 0) if shell else 0
            # A list of whole commands is one of a loop.
            yield from split_commands(one[given_at + 1]) if given_at else [program_words(one)]
            yield from (words for text in one if " " in text and not given_at for words in split_commands(text))
        if words:
            return
        texts = self._values.texts(first)
        more = [(self._values.texts(argument) or [UNKNOWN])[0] for argument in arguments[1:]]
        if more and (not texts or " " not in texts[0]):
            yield program_words([(texts or [UNKNOWN])[0], *more])  # create_subprocess_exec("pip", "install")
            return
        yield from itertools.chain.from_iterable(map(split_commands, texts))


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each name that a cell imports, with the module or the member of one that it stands for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((one.asname, one.name) for one in node.names if one.asname)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((one.asname or one.name, f"{node.module}.{one.name}") for one in node.names)
