"""The methods of the texts and containers of the Python subset, each counted by a meter. Does not know syntax or arrays."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import Any

from arc_submit.programs.python.meter import Meter

Method = Callable[..., Any]


def make_methods(meter: Meter) -> dict[type, dict[str, Method]]:
    """The methods of texts and containers, by type and name; the first argument is the value."""
    items, made = meter.items, meter.made

    def grows(function: Callable[..., Any]) -> Method:
        """Of a method that adds an item or several."""

        def call(value: Any, *arguments: Any) -> Any:
            meter.cells(1)
            return function(value, *arguments)

        return call

    def reads(function: Callable[..., Any]) -> Method:
        """Of a method that takes iterables."""

        def call(value: Any, *arguments: Any, **keywords: Any) -> Any:
            given = [list(items(one)) if not isinstance(one, dict) else one for one in arguments]
            meter.cells(sum(map(len, given)))
            return made(function(value, *given, **keywords))

        return call

    def scans(function: Callable[..., Any]) -> Method:
        """Of a method that goes through the value."""

        def call(value: Any, *arguments: Any) -> Any:
            meter.step(len(value) // 16 + 1)
            return function(value, *arguments)

        return call

    def copies(function: Callable[..., Any]) -> Method:
        def call(value: Any, *arguments: Any) -> Any:
            meter.step(len(value) // 16 + 1)
            return made(function(value, *arguments))

        return call

    def sort(value: list[Any], key: Any = None, reverse: Any = False) -> None:
        meter.step(len(value))
        value.sort(key=key, reverse=reverse)

    def inserts(value: deque[Any], index: int, item: Any) -> None:
        meter.cells(1)
        meter.step(len(value) // 16 + 1)
        value.insert(index, item)

    def fills(function: Callable[..., Any]) -> Method:
        """Of a method that makes a text of a given width."""

        def call(value: str, width: int, *arguments: Any) -> Any:
            meter.cells(max(len(value), width))
            return function(value, width, *arguments)

        return call

    def most_common(value: Counter[Any], n: int | None = None) -> Any:
        meter.step(len(value))
        return made(value.most_common(n))

    def pop_first(value: set[Any]) -> Any:
        items(value)
        return value.pop()

    def replace(value: str, old: str, new: str, *count: Any) -> str:
        meter.cells(len(value) + (len(value) + 1) * len(new) // max(1, len(old)))
        return value.replace(old, new, *count)

    def join(value: str, parts: Any) -> str:
        given = list(items(parts))
        meter.cells(sum(map(len, given)) + len(value) * len(given))
        return value.join(given)

    sequence = {"index": scans, "count": scans}
    lists: dict[str, Method] = {
        "append": grows(list.append),
        "extend": reads(list.extend),
        "insert": grows(list.insert),
        "remove": scans(list.remove),
        "pop": scans(list.pop),
        "clear": list.clear,
        "sort": sort,
        "reverse": scans(list.reverse),
        "copy": copies(list.copy),
    }
    dicts: dict[str, Method] = {
        "get": dict.get,
        "keys": dict.keys,
        "values": dict.values,
        "items": dict.items,
        "setdefault": grows(dict.setdefault),
        "update": reads(dict.update),
        "pop": dict.pop,
        "popitem": dict.popitem,
        "clear": dict.clear,
        "copy": copies(dict.copy),
    }
    frozen: dict[str, Method] = {name: reads(getattr(frozenset, name)) for name in ("union", "intersection", "difference", "isdisjoint")}
    frozen |= {name: reads(getattr(frozenset, name)) for name in ("symmetric_difference", "issubset", "issuperset")}
    sets: dict[str, Method] = {name: reads(getattr(set, name)) for name in frozen}
    sets |= {
        "add": grows(set.add),
        "discard": set.discard,
        "remove": set.remove,
        "pop": pop_first,
        "clear": set.clear,
        "copy": copies(set.copy),
        "update": reads(set.update),
        "intersection_update": reads(set.intersection_update),
        "difference_update": reads(set.difference_update),
    }
    sets["symmetric_difference_update"] = reads(set.symmetric_difference_update)
    texts: dict[str, Method] = {
        name: copies(getattr(str, name))
        for name in (
            *("split", "strip", "lstrip", "rstrip", "upper", "lower", "title", "capitalize"),
            *("splitlines", "partition"),
        )
    }
    texts |= {
        name: scans(getattr(str, name))
        for name in (
            *("startswith", "endswith", "find", "rfind"),
            *("isdigit", "isalpha", "isalnum", "isnumeric", "isspace", "isupper", "islower"),
        )
    }
    texts |= {name: fills(getattr(str, name)) for name in ("zfill", "ljust", "rjust", "center")}
    texts |= {"replace": replace, "join": join}
    queues: dict[str, Method] = {name: grows(getattr(deque, name)) for name in ("append", "appendleft")}
    queues |= {name: reads(getattr(deque, name)) for name in ("extend", "extendleft")}
    queues |= {name: scans(getattr(deque, name)) for name in ("remove", "reverse", "rotate")}
    queues |= {"insert": inserts, "pop": deque.pop, "popleft": deque.popleft, "clear": deque.clear, "copy": copies(deque.copy)}
    for kind, methods in ((list, lists), (str, texts), (deque, queues)):
        methods |= {name: wrap(getattr(kind, name)) for name, wrap in sequence.items()}
    tuples = {name: wrap(getattr(tuple, name)) for name, wrap in sequence.items()}
    counters = dicts | {
        "update": reads(Counter.update),
        "subtract": reads(Counter.subtract),
        "copy": copies(Counter.copy),
        "most_common": most_common,
        "elements": Counter.elements,
        "total": scans(Counter.total),
    }
    with_default = dicts | {"copy": copies(defaultdict.copy)}
    plain: dict[type, dict[str, Method]] = {list: lists, dict: dicts, set: sets, frozenset: frozen, str: texts, tuple: tuples}
    return plain | {deque: queues, Counter: counters, defaultdict: with_default}
