"""One definition for each option: a field of a settings class carries its help, choices, range and identity.

The command line, the checks, the keywords of `make_config` (and with them the parameters of a notebook) and the fingerprint of a run
follow from the definition. A field cannot be defined without an identity, so a new option cannot be left out of a fingerprint by
accident. Does not know any option.
"""

from __future__ import annotations

import argparse
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}


class Identity(Enum):
    """Whether two runs with different values of a field are different runs.

    SAME: they are different; the fingerprint holds the value under the field's name.
    FREE: they are the same; a resumed run may change the value.
    COMPUTED: the fingerprint holds something computed from the value, such as a digest of files.
    """

    SAME = "same"
    FREE = "free"
    COMPUTED = "computed"


@dataclass(frozen=True)
class Option:
    """The definition of one field.

    Attributes:
        help: for the command line; the default is added.
        identity: see Identity.
        when: the fingerprint leaves the field out of settings for which this is false; None leaves it out of none.
        key: name in the fingerprint; None takes the field's name.
        choices: allowed values; empty allows all.
        minimum, maximum: inclusive bounds.
        above, below: exclusive bounds.
        aliases: earlier names of the field, accepted as flags and as keywords.
        read: makes the value from text; None follows the field's type.
        metavar: name of the value in the help.
        commands: sub-commands that take the option; empty: none does.
        required: the command line must give it.
        kinds: kinds of sources that have a value of their own; empty: a run has one value.
        repeated: the flag may be given several times, and its values are one tuple.
    """

    help: str
    identity: Identity
    when: Callable[[Any], bool] | None = None
    key: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    aliases: tuple[str, ...] = ()
    read: Callable[[str], Any] | None = None
    metavar: str | None = None
    commands: tuple[str, ...] = ()
    required: bool = False
    kinds: tuple[str, ...] = ()
    repeated: bool = False

    def check(self, flag: str, value: Any) -> None:
        """Refuse a value that is not allowed.

        Raises:
            ConfigError: with the flag, the value and the range.
        """
        if value is None:
            return
        if self.choices and any(one not in self.choices for one in (value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"--{flag} {_text(value)}: choose from {', '.join(self.choices)}")
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        for refused, words, bound in (
            (self.minimum is not None and value < self.minimum, "at least {:g} is needed", self.minimum),
            (self.maximum is not None and value > self.maximum, "at most {:g} is allowed", self.maximum),
            (self.above is not None and not self.above < value < math.inf, "a number above {:g} is needed", self.above),
            (self.below is not None and not value < self.below, "a number below {:g} is needed", self.below),
        ):
            if refused:
                raise ConfigError(f"--{flag} {value:g}: {words.format(bound)}")


def option(
    default: Any = MISSING,
    *,
    help: str,
    identity: Identity,
    factory: Callable[[], Any] | None = None,
    **definition: Any,
) -> Any:
    """A dataclass field with its definition (see Option for the other arguments)."""
    metadata = {"option": Option(help, identity, **definition)}
    return field(default_factory=factory, metadata=metadata) if factory else field(default=default, metadata=metadata)


def options_of(settings: Any) -> Iterator[tuple[str, Option]]:
    """The name and the definition of each field of a settings class or object; nested settings have none."""
    for one in fields(settings):
        if "option" in one.metadata:
            yield one.name, one.metadata["option"]


def flag_of(name: str, prefix: str = "") -> str:
    """The flag of a field, without the two dashes."""
    return f"{prefix}{name}".replace("_", "-")


def check_options(settings: Any, prefix: str = "") -> None:
    """Refuse settings with a value out of its range.

    Args:
        prefix: what the flags of these settings begin with.

    Raises:
        ConfigError: for the first such value.
    """
    for name, definition in options_of(settings):
        definition.check(flag_of(name, prefix), getattr(settings, name))


def add_options(
    parser: Any, settings: type, command: str, prefix: str = "", defaults: Mapping[str, Any] | None = None, bare: bool = False
) -> None:
    """Add a flag for each field of a settings class that a sub-command takes.

    A flag that is not given leaves None, so that a preset can decide.

    Args:
        parser: an ArgumentParser or a group of one.
        command: the sub-command.
        prefix: what the flags begin with.
        defaults: for the help, where the sub-command has other defaults than the class.
        bare: the flags without the prefix are accepted too.
    """
    prefixes = dict.fromkeys((prefix, "") if bare else (prefix,))
    for name, definition in options_of(settings):
        if command not in definition.commands:
            continue
        flags = [f"--{flag_of(one, each)}" for one in (name, *definition.aliases) for each in prefixes]
        default = (defaults or {}).get(name, _default(settings, name))
        shown = f"{definition.help} (default: {_text(default)})" if default not in (None, MISSING, False, ()) else definition.help
        arguments: dict[str, Any] = {"dest": f"{prefix}{name}", "help": shown.replace("%", "%%"), "default": None}
        arguments |= {"required": True} if definition.required else {}
        if value_type(settings, name) is bool:
            parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **arguments)
            continue
        arguments |= {"action": "extend"} if definition.repeated else {}
        metavar = definition.metavar or ("{" + ",".join(definition.choices) + "}" if definition.choices else name.upper())
        parser.add_argument(*flags, type=_reader(settings, name, prefix), metavar=metavar, **arguments)


def _reader(settings: type, name: str, prefix: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return from_text(settings, name, text, prefix)

    return read


def from_text(settings: type, name: str, text: str, prefix: str = "") -> Any:
    """The value of a field from its text on a command line or in a notebook.

    Raises:
        ConfigError: where the text is no value of the field's type.
    """
    definition: Option = next(one.metadata["option"] for one in fields(settings) if one.name == name)
    if definition.read is not None:
        return definition.read(text)
    wanted = value_type(settings, name)
    try:
        if typing.get_origin(wanted) is tuple:
            return tuple(text.split(","))
        if wanted is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.strip().lower()]
        return wanted(text)
    except (ValueError, KeyError):
        raise ConfigError(f"--{flag_of(name, prefix)} {text}: {_KINDS.get(wanted, 'another value')} is needed") from None


def with_current_names(settings: type, values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by the names that the fields have now, from values by those or by earlier names; text becomes the field's type.

    Raises:
        ConfigError: where a field is given under two names, or a value is none of it.
    """
    current = {}
    for name, definition in options_of(settings):
        given = [one for one in (name, *definition.aliases) if values.get(prefix + one) is not None]
        if len(given) > 1:
            raise ConfigError(f"{prefix}{given[0]} and {prefix}{given[1]} are one setting; give it once")
        for one in given:
            current[prefix + name] = _of_type(settings, name, values[prefix + one], prefix)
    return current


def _of_type(settings: type, name: str, value: Any, prefix: str) -> Any:
    """A value as its field has it: from text, from a list, and a whole number also from a float such as 40.0.

    Raises:
        ConfigError: where it is of another type.
    """
    wanted = value_type(settings, name)
    if isinstance(value, str) and wanted is not str:
        return from_text(settings, name, value, prefix)
    if wanted is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if typing.get_origin(wanted) is tuple and not isinstance(value, bool | Mapping):
        return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value),)
    allowed: dict[Any, Any] = {int: int, float: (int, float), bool: bool, str: str, Path: Path}
    if wanted in allowed and not (isinstance(value, allowed[wanted]) and (wanted is bool or not isinstance(value, bool))):
        raise ConfigError(f"{prefix}{name} = {value!r}: {_KINDS[wanted]} is needed, not {type(value).__name__}")
    if (
        wanted not in allowed
        and isinstance(value, bool | int | float | list | tuple | Mapping)
        and not isinstance(value, _container(wanted))
    ):
        raise ConfigError(f"{prefix}{name} = {value!r}: a text such as docs/usage.md gives is needed, not {type(value).__name__}")
    return value


def _container(wanted: Any) -> type:
    """The class of a type that holds several values."""
    kind = typing.get_origin(wanted) or wanted
    return kind if isinstance(kind, type) else object


def value_type(settings: type, name: str) -> Any:
    """The type of a field without None: int, float, str, bool, Path or tuple[str, ...]."""
    hint = typing.get_type_hints(settings)[name]
    if isinstance(hint, types.UnionType):
        hint = next(one for one in typing.get_args(hint) if one is not type(None))
    return hint


def identity_values(settings: Any, prefix: str = "", kind: str | None = None) -> dict[str, Any]:
    """What the fingerprint holds of a settings object's fields with Identity.SAME.

    Args:
        kind: of a source: only fields of which it has a value of its own; None: all fields.
    """
    return {
        prefix + (definition.key or name): _plain(getattr(settings, name))
        for name, definition in options_of(settings)
        if definition.identity is Identity.SAME
        and (kind is None or kind in definition.kinds)
        and (definition.when is None or definition.when(settings))
    }


def _plain(value: Any) -> Any:
    """A value as JSON keeps it."""
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def _default(settings: type, name: str) -> Any:
    one = next(one for one in fields(settings) if one.name == name)
    return one.default if one.default is not MISSING else MISSING


def _text(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def option_names(settings: type) -> set[str]:
    """Names of a settings class's fields, earlier names included."""
    return {one for name, definition in options_of(settings) for one in (name, *definition.aliases)}


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json, which every command takes."""
    parser.add_argument("--json", action="store_true", help="end with one JSON line of figures")
