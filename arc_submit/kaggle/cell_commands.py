"""What a notebook's cell runs: its Python calls with the texts that they are given, and the shell commands in it.

IPython's own transformer turns !, % and %% into calls. Cells are read and never run: a text that is computed is unknown. Does not know what
a command does.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

UNKNOWN = "?"  # stands for a part of a text that is not known
_SHELLS = ("bash", "sh", "zsh", "dash")
_RUNNERS = {
    *("system", "popen", "run", "call", "check_call", "check_output", "Popen", "getoutput", "getstatusoutput", "spawn"),
    *("create_subprocess_shell", "create_subprocess_exec", "execv", "execvp", "execl", "execlp"),
}
_SHELL_MAGICS = ("bash", "sh", "script", "system", "sx", "!", "!!")
_PACKAGE_MAGICS = ("pip", "conda", "mamba", "micromamba", "uv")
# Words before a command that change nothing in it, and those of the shell's own language.
_PREFIXES = {
    *("sudo", "time", "nohup", "exec", "env", "command", "xargs", "nice", "stdbuf", "unbuffer"),
    *("if", "then", "else", "elif", "do", "while", "until", "!", "{", "}", "fi", "done"),
}


@dataclass(frozen=True)
class Call:
    """A Python call.

    Attributes:
        name: as written, such as "os.system".
        arguments: texts of the positional arguments; UNKNOWN for any other value.
        keywords: texts of the keyword arguments that are known.
    """

    name: str
    arguments: tuple[str, ...]
    keywords: Mapping[str, str]

    @property
    def function(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


def parse_cell(source: str) -> ast.Module | None:
    """A cell's Python with IPython's own commands as calls; None where it is not valid."""
    from IPython.core.inputtransformer2 import TransformerManager  # slow to import, and untyped

    try:
        return ast.parse(TransformerManager().transform_cell(source))  # type: ignore[no-untyped-call]
    except (SyntaxError, ValueError):
        return None


class Notebook:
    """Reads the cells of a notebook in their order: a variable that one cell sets to a text is known in the next ones."""

    def __init__(self) -> None:
        self._variables: dict[str, ast.expr] = {}

    def read(self, source: str) -> tuple[list[Call], list[list[str]]]:
        """The calls and the shell commands of a cell, each command as its words without what only precedes it."""
        tree = parse_cell(source)
        if tree is None:
            lines = [match[1] for match in re.finditer(r"^\s*[!%]+(.*)", source, re.MULTILINE)]
            return [], [words for line in lines for words in split_commands(line)]
        self._variables |= {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        calls, commands = [], []
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            call = Call(
                ast.unparse(node.func),
                tuple(self._text(argument) or UNKNOWN for argument in node.args),
                {one.arg: text for one in node.keywords if one.arg and (text := self._text(one.value))},
            )
            if call.name.startswith("get_ipython()."):
                more_calls, more_commands = self._magic(call)
                calls += more_calls
                commands += more_commands
            else:
                calls.append(call)
                commands += self._started(call, node)
        return calls, commands

    def _magic(self, call: Call) -> tuple[list[Call], list[list[str]]]:
        """What a line of IPython's own runs."""
        name, line, body = (*call.arguments, "", "", "")[:3]
        if call.function in ("system", "getoutput"):
            return [], list(split_commands(name))
        if call.function in ("run_line_magic", "magic"):
            name, line = (name, line) if call.function == "run_line_magic" else (*name.lstrip("%").split(maxsplit=1), "", "")[:2]
            line = f"{name} {line}" if name in _PACKAGE_MAGICS else line if name in _SHELL_MAGICS else ""
            return [], list(split_commands(line))
        if call.function != "run_cell_magic":
            return [], []
        if name == "script" or name in _SHELL_MAGICS:
            is_shell = name != "script" or not line or PurePosixPath(line.split()[0]).name in (*_SHELLS, "env")
            return ([], list(split_commands(body))) if is_shell else self.read(body)
        if name == "writefile" and not line.endswith(".py"):
            return [], list(split_commands(body)) if line.endswith(".sh") else []
        return self.read(body) if name not in ("html", "javascript", "js", "latex", "markdown", "svg") else ([], [])

    def _started(self, call: Call, node: ast.Call) -> list[list[str]]:
        """The shell commands that a call starts."""
        first = node.args[0] if node.args else next((one.value for one in node.keywords if one.arg in ("args", "cmd")), None)
        if first is None:
            return []
        words = self._words(first)
        if words is None and call.function.startswith("exec") and len(node.args) > 1:
            words = self._words(node.args[1])
        if call.function in ("main", "pipmain", "pip_main") and words and words[0] in ("install", "download", "wheel"):
            return [["pip", *words]]
        if call.function not in _RUNNERS:
            return []
        if words is None and len(node.args) > 1 and all(isinstance(argument, ast.Constant) for argument in node.args[1:]):
            return [_program([self._text(argument) or UNKNOWN for argument in node.args])]  # create_subprocess_exec("pip", "install")
        if words is not None and len(words) > 2 and PurePosixPath(words[0]).name in _SHELLS and words[1] in ("-c", "-lc", "-ec"):
            return list(split_commands(words[2]))
        if words is not None:
            return [_program(words)]
        text = self._text(first)
        if text is None:
            return []
        more = [self._text(argument) or UNKNOWN for argument in node.args[1:]]
        return [_program([text, *more])] if more and " " not in text else list(split_commands(text))

    def _text(self, node: ast.expr, depth: int = 5) -> str | None:
        """The text of an expression, with UNKNOWN for parts that are not known; None where it is no text."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else UNKNOWN for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._text(node.left, depth), self._text(node.right, depth)
            return None if left is None and right is None else (left or UNKNOWN) + (right or UNKNOWN)
        if isinstance(node, ast.Name) and depth and node.id in self._variables:
            return self._text(self._variables[node.id], depth - 1)
        return None

    def _words(self, node: ast.expr, depth: int = 5) -> list[str] | None:
        """The words of a list, a tuple, or of a text that is split; None for another expression."""
        if isinstance(node, ast.List | ast.Tuple):
            return ["python" if ast.unparse(one) == "sys.executable" else self._text(one) or UNKNOWN for one in node.elts]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._words(node.left, depth), self._words(node.right, depth)
            return None if left is None and right is None else [*(left or [UNKNOWN]), *(right or [UNKNOWN])]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split":
            text = self._text(node.args[0] if ast.unparse(node.func) == "shlex.split" and node.args else node.func.value)
            return None if text is None else text.split()
        if isinstance(node, ast.Name) and depth and node.id in self._variables:
            return self._words(self._variables[node.id], depth - 1)
        return None


def split_commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell text as words: of lists, pipes, conditions, substitutions and `bash -c`."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"(^|\s)#.*$", r"\1", text, flags=re.MULTILINE)
    for part in re.split(r"\n|;|&&|\|\|?|(?<![<>&])&(?![>&])|\$\(|`|\(|\)", text):
        try:
            words = shlex.split(part)
        except ValueError:  # a quote that a split has cut
            words = part.replace('"', " ").replace("'", " ").split()
        words = _program(words)
        if len(words) > 2 and words[0] in _SHELLS and re.fullmatch(r"-\w*c", words[1]):
            yield from split_commands(" ".join(words[2:]))
        elif words[:1] == ["eval"]:
            yield from split_commands(" ".join(words[1:]))
        elif words:
            yield words


def _program(words: Sequence[str]) -> list[str]:
    """The words of a command from its program on, the program as a name; `python -m NAME` is NAME."""
    rest = list(words)
    variables = []
    while rest and (rest[0] in _PREFIXES or re.match(r"\w+=", rest[0]) or (len(rest) > 1 and rest[0] in ("export", "timeout"))):
        taken = rest.pop(0)
        variables += [taken] if "=" in taken else []
        if taken == "timeout":
            rest.pop(0)
        while taken in _PREFIXES and rest and re.match(r"-|\d+$", rest[0]):  # an option, or the number that one takes
            rest.pop(0)
    if not rest:
        return variables  # export PIP_NO_INDEX=1
    rest = [part for word in rest for part in (("-m", word[2:]) if re.match(r"-m[a-z]", word) and "python" in rest[0] else (word,))]
    if "-m" in rest[:4] and rest.index("-m") + 1 < len(rest):
        rest = rest[rest.index("-m") + 1 :]
    return [PurePosixPath(rest[0]).name, *rest[1:], *variables]
