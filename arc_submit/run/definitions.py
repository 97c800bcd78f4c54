"""Sources with a name of their own, as they are given and as a run has them.

They are given as texts such as "ttft15=ttft:model=FOLDER,ttft_steps=100", or as tables of a TOML file. Does not know what an option means.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError
from arc_submit.options import Identity, option
from arc_submit.run.choices import Choice

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_RESERVED = ("finetune", "warmup", "judge", "all")  # names of other work in the timeline
_FORM = "write NAME=KIND or NAME=KIND:OPTION=VALUE,OPTION=VALUE"


@dataclass(frozen=True)
class GivenSource:
    """A source as a user gives it.

    Attributes:
        name: of the source.
        kind: key of SOURCE_TABLE.
        options: by name, as texts or as values of a TOML file.
        where: for messages.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    where: str

    @property
    def text(self) -> str:
        """The text that gives it.

        Raises:
            ConfigError: where a value cannot stand in such a text.
        """
        parts = [f"{name}={_value_text(value)}" for name, value in self.options.items()]
        text = f"{self.name}={self.kind}" + (f":{','.join(parts)}" if parts else "")
        if dict(read_source(text).options) != {part.partition("=")[0]: part.partition("=")[2] for part in parts}:
            raise ConfigError(f"{self.where}: a value with a comma and = cannot be read back; give a path without them")
        return text


@dataclass(frozen=True)
class SourceShare:
    """What a source with a name of its own has beside the options of a run."""

    share: float | None = option(
        None, help="share of the time of the devices (default: by the estimates)", identity=Identity.FREE, above=0, maximum=1
    )


@dataclass(frozen=True)
class SourceDefinition:
    """A source with a name of its own, as a run has it.

    Attributes:
        kind: key of SOURCE_TABLE.
        values: the fields of RunConfig in which its configuration differs from the run's.
        share: of its lane's time; None: by the estimates.
        choices: what the preset auto decided for it, and why.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    share: float | None = None
    choices: tuple[Choice, ...] = ()


def split_definitions(text: str) -> tuple[str, ...]:
    """The definitions in one text, which stand in lines of their own or behind semicolons."""
    return tuple(part.strip() for part in re.split(r"[;\n]", text) if part.strip())


def read_source(text: str) -> GivenSource:
    """The source that a text gives.

    A value goes on behind a comma where no option begins: "devices=cuda:0,cuda:1,share=0.3" has two options. A name alone is its kind.

    Raises:
        ConfigError: where the text has another form.
    """
    where = f"--source {text}"
    head, colon, rest = text.partition(":")
    name, sign, kind = (part.strip() for part in head.partition("="))
    if not name or (sign and not kind) or (colon and not rest.strip()):
        raise ConfigError(f"{where}: {_FORM}")
    options: dict[str, str] = {}
    last = ""
    for part in rest.split(",") if rest else ():
        option, equals, value = part.partition("=")
        if equals:
            last = option.strip().lstrip("-").replace("-", "_")
            if not last or last in options:
                raise ConfigError(f"{where}: {f'{last} is there twice' if last else _FORM}")
            options[last] = value.strip()
        elif last:
            options[last] += f",{part.strip()}"
        else:
            raise ConfigError(f"{where}: {part.strip()!r} is no OPTION=VALUE; {_FORM}")
    return GivenSource(name, kind or name, options, where)


def read_sources_file(path: Path) -> list[GivenSource]:
    """The sources of a TOML file: a table for each, by its name, with "kind" and options.

    Raises:
        ConfigError: where the file cannot be read, or a table has no kind.
    """
    where = f"--sources-file {path}"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read ({error.strerror}); give a TOML file with a table for each source") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: is no TOML ({error}); write a table for each source, such as [ttft15]") from None
    if not tables:
        raise ConfigError(f'{where}: has no table; write one for each source, such as [ttft15] with kind = "ttft"')
    sources = []
    for name, table in tables.items():
        if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
            raise ConfigError(f'{where}: [{name}] needs kind = "search", "frozen", "code" or "ttft"')
        options = {option.replace("-", "_"): value for option, value in table.items() if option != "kind"}
        if odd := [option for option, value in options.items() if isinstance(value, dict)]:
            raise ConfigError(f"{where}: [{name}] {odd[0]} is a table; give a value")
        sources.append(GivenSource(name, table["kind"], options, f"{where}: [{name}]"))
    return sources


def given_sources(texts: Iterable[str], file: Path | None) -> list[GivenSource]:
    """The sources that a run is given, those of the file first.

    Raises:
        ConfigError: where one cannot be read, has no usable name, or is there twice.
    """
    sources = [*(read_sources_file(file) if file is not None else ()), *map(read_source, texts)]
    seen: dict[str, str] = {}
    for one in sources:
        if not _NAME.fullmatch(one.name):
            raise ConfigError(f"{one.where}: the name {one.name!r} must be a letter and up to 31 more letters, digits, - and _")
        if one.name.lower() in _RESERVED:
            raise ConfigError(f"{one.where}: the name {one.name} stands for other work in a run; give another one")
        if one.name.lower() in seen:
            raise ConfigError(f"{one.where}: the name {one.name} is there twice ({seen[one.name.lower()]}); give each source its own")
        seen[one.name.lower()] = one.where
    return sources


def _value_text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
