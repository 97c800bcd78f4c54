"""Splits shell text into its simple commands, each as its words. Does not know what a command does."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

SHELLS = ("bash", "sh", "zsh", "dash")
_PUNCTUATION = "();<>|&\n`"
# Words before a command that change nothing in it, and those of the shell's own language.
_PREFIXES = {
    *("sudo", "time", "nohup", "exec", "env", "command", "nice", "ionice", "stdbuf", "unbuffer", "setsid"),
    *("if", "then", "else", "elif", "do", "while", "until", "!", "{", "}", "fi", "done", "function"),
}
# Programs that run another one after options of their own: every later word may begin it.
_WRAPPERS = ("xargs", "find", "flock", "parallel", "srun", "conda", "mamba", "micromamba", "taskset", "chroot", "watch")


def split_commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell text: of lists, pipes, conditions, substitutions, `bash -c`, and text that is piped into a shell."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"(^|\s)#.*$", r"\1", text, flags=re.MULTILINE)
    before: list[str] = []
    for parts, ends_in_pipe in _simple(text):
        words = program_words(parts)
        shell = words[:1] and words[0] in SHELLS
        given = next((place for place, word in enumerate(words[1:], 1) if re.fullmatch(r"-\w*c", word)), 0) if shell else 0
        if given and len(words) > given + 1:
            # Where the text was not in quotes it is all that follows.
            yield from split_commands(words[given + 1] if " " in words[given + 1] else " ".join(words[given + 1 :]))
        elif words[:1] == ["eval"]:
            yield from split_commands(" ".join(words[1:]))
        elif words:
            yield words
        if shell and len(words) == 1 and before[:1] in (["echo"], ["printf"]):
            yield from split_commands(" ".join(before[1:]))
        for word in words:
            for inner in re.findall(r"\$\(([^()]*)\)|`([^`]*)`", word):
                yield from split_commands("".join(inner))
        if words and words[0] in _WRAPPERS:
            for place in range(1, len(words)):
                yield program_words(words[place:])
        before = words if ends_in_pipe else []


def _simple(text: str) -> Iterator[tuple[list[str], bool]]:
    """The words of each simple command, and whether its output goes into a pipe; quotes are taken off."""
    try:
        lexer = shlex.shlex(text, posix=True, punctuation_chars=_PUNCTUATION)
        lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
        tokens = list(lexer)
    except ValueError:  # an open quote, as in the text of another language
        for part in re.split(r"\n|;|&&|\|\|?|(?<![<>&])&(?![>&])|\$\(|`|\(|\)", text):
            yield part.replace('"', " ").replace("'", " ").split(), False
        return
    words: list[str] = []
    redirects = False
    for token in [*tokens, ";"]:
        if not set(token) <= set(_PUNCTUATION):
            if not redirects:
                words.append(token)
            redirects = False
        elif set(token) <= set("<>&") and ("<" in token or ">" in token):
            redirects = True
        else:
            yield words, token == "|"
            words, redirects = [], False


def program_words(words: Sequence[str]) -> list[str]:
    """The words of a command from its program on, the program as a name; `python -m NAME` is NAME."""
    rest = list(words)
    variables = []
    while rest and (rest[0] in _PREFIXES or re.match(r"\w+=", rest[0]) or (len(rest) > 1 and rest[0] in ("export", "timeout"))):
        taken = rest.pop(0)
        variables += [taken] if "=" in taken else []
        while taken == "timeout" and rest and re.match(r"-|[\d.]+[smhd]?$", rest[0]):
            rest.pop(0)
        while taken in _PREFIXES and rest and re.match(r"-|\d+$", rest[0]):  # an option, or the number that one takes
            rest.pop(0)
    if not rest:
        return variables  # export PIP_NO_INDEX=1
    rest = [part for word in rest for part in (("-m", word[2:]) if re.match(r"-m[a-z]", word) and "python" in rest[0] else (word,))]
    rest = [re.sub(r"^-\w*m$", "-m", word) if "python" in rest[0] and word.startswith("-") else word for word in rest]
    if "-m" in rest[:4] and rest.index("-m") + 1 < len(rest):
        rest = rest[rest.index("-m") + 1 :]
    return [PurePosixPath(rest[0]).name or rest[0], *rest[1:], *variables]
