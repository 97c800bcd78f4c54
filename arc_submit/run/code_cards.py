"""How many cards hold one copy of the model of the source "code", which cards work together, and why.

vllm divides a model over the cards of one worker (tensor parallel): each card has a part of every layer. By itself a run takes one card for
each worker, and where none holds the model, the smallest number that does. Its figures are estimates of what vllm takes on a card. Decides
before any work; does not know tasks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from arc_submit.base_model.checks import loaded_bytes
from arc_submit.base_model.memory import GIB, heads_of, read_shape
from arc_submit.errors import ConfigError, DataError
from arc_submit.inference.settings import VLLM_SHARE
from arc_submit.run.card_check import sources_that_fit_no_card
from arc_submit.run.config import RunConfig
from arc_submit.run.measured import memory_factor
from arc_submit.workers.devices import Gpu

_BESIDE = 1.0 * GIB  # of what vllm plans with, for the CUDA context, NCCL and compiled graphs
_STEP_TOKENS = 2048  # that vllm reads in a step at least
_REMEDY = "take cards with more memory or a smaller model"


@dataclass(frozen=True)
class CardGroups:
    """The cards of each worker.

    Attributes:
        groups: devices of each worker; empty: each worker has one device.
        cards: that a worker holds; on a CPU, processes.
        reason: for people; "" where each worker has one device.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    cards: int = 1
    reason: str = ""


@dataclass(frozen=True)
class Divided:
    """What decides the bytes of a model on one of several cards.

    Attributes:
        weights: bytes of all of them, as they are loaded.
        heads, kv_heads, head_size, layers, width, mlp_width, vocabulary: as its config.json has them.
        group_size: values of a row of a weight that share a scale; 0 for weights in 16 bits.
    """

    weights: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    width: int
    mlp_width: int
    vocabulary: int
    group_size: int = 0

    def accepts(self, cards: int) -> bool:
        """Whether vllm divides the model over so many cards: whole heads and whole groups of values on each."""
        keys = self.kv_heads % cards == 0 or cards % self.kv_heads == 0  # with more cards than key-value heads, some have the same one
        rows = (self.mlp_width, self.heads * self.head_size)
        grouped = all(row % cards == 0 and (row // cards) % self.group_size == 0 for row in rows) if self.group_size > 0 else True
        return self.heads % cards == 0 and keys and self.mlp_width % cards == 0 and grouped

    def bytes_on_a_card(self, cards: int, longest: int, slots: int) -> int:
        """Bytes that vllm takes on each card.

        Args:
            longest: tokens of the longest question with its answer, for which it wants keys and values.
            slots: answers side by side.
        """
        keys = longest * 2 * 2 * self.layers * max(1, self.kv_heads // cards) * self.head_size
        of_a_token = (6 * self.mlp_width + 4 * self.heads * self.head_size) // cards + 8 * self.width
        return self.weights // cards + keys + max(_STEP_TOKENS, longest) * of_a_token + 12 * slots * self.vocabulary // cards


def read_divided(config: RunConfig) -> Divided | None:
    """What decides the bytes of the model on several cards, from its files; None where config.json does not say its sizes.

    Raises:
        DataError: where config.json cannot be read.
        ConfigError: where the weights cannot.
    """
    path = config.model / "config.json"
    try:
        whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        values = whole.get("text_config", whole)
        grouped = values.get("quantization_config") or whole.get("quantization_config") or {}
        return Divided(
            loaded_bytes(config.model),
            int(values["num_hidden_layers"]),
            *heads_of(values),
            int(values["hidden_size"]),
            int(values["intermediate_size"]),
            int(values["vocab_size"]),
            int(grouped.get("group_size") or 0),
        )
    except (KeyError, TypeError, AttributeError):
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a model's configuration ({type(error).__name__}: {error})") from None


def choose_card_groups(config: RunConfig, gpus: Mapping[str, Gpu], longest: int) -> CardGroups:
    """The cards of each worker of the source code.

    Args:
        gpus: by device; empty on a CPU and on a cluster, where nothing is known of memory.
        longest: tokens of the longest question with its answer.

    Raises:
        ConfigError: where no number of the cards holds the model, or the number that is given cannot work.
        DataError: where the model's files cannot be read.
    """
    given = config.code.cards
    if given is not None and given > 1:
        return _given_groups(config, given, gpus, longest)
    reasons = _one_card(config, gpus)
    model = read_divided(config) if gpus and all(gpu.gib for gpu in gpus.values()) else None
    if given == 1 or model is None or (not reasons and _holds_alone(config, model, gpus, longest)):
        _refuse(reasons)
        return CardGroups()
    if config.code.learn_rounds and not _one_card(replace(config, code=replace(config.code, learn_rounds=0)), gpus):
        _refuse(reasons)  # which says that one card holds the model without the learning
    fitting = _smallest_number(config, model, gpus, longest)
    size = f"--model {config.model}: {model.weights / GIB:.1f} GiB of weights and a question of {longest} tokens fit no single card"
    if fitting is None:
        known = read_shape(config.model) is not None
        if reasons or (not known and model.weights // _most_cards(model, gpus) > max(_room(config, gpu) for gpu in gpus.values())):
            raise ConfigError(_no_number(config, model, gpus, longest) or next(iter(reasons.values())))
        return CardGroups()  # what lacks is narrowly missed by an estimate: the engine finds out
    if config.code.learn_rounds:
        raise ConfigError(f"{size}, and --code-learn-rounds trains on one; leave it out, and {fitting} cards hold the model together")
    _check_vllm(f"{size}, and")
    groups = _groups_that_hold(config, model, fitting, gpus, longest)
    return _explained(config, CardGroups(groups, fitting, size), (model, gpus, longest))


def cards_by_size(parameters: float, gib: float | None, count: int) -> int:
    """The smallest power of two of `count` cards that holds a model of 16 bits of which only the size is known; 1 where none does.

    Args:
        gib: of a card; None where that is not known.
    """
    room = 0.0 if gib is None else VLLM_SHARE * gib * GIB - 2 * _BESIDE
    numbers = [2**n for n in range(count.bit_length()) if 2**n <= count]
    return next((number for number in numbers if 2 * parameters / number <= room), 1)


def _one_card(config: RunConfig, gpus: Mapping[str, Gpu]) -> dict[str, str]:
    """Why no single card holds the model, by the memory plan; empty where one does, and where the plan knows nothing."""
    return sources_that_fit_no_card(replace(config, sources=("code",)), gpus)


def _holds_alone(config: RunConfig, model: Divided, gpus: Mapping[str, Gpu], longest: int) -> bool:
    """Whether a single card holds a model that the memory plan does not refuse.

    The plan is that of the transformers engine. What vllm takes, and a model that the plan does not know, are estimated.
    """
    by_transformers = config.engine == "transformers" or config.code.learn_rounds > 0 or find_spec("vllm") is None
    return (by_transformers and read_shape(config.model) is not None) or bool(_groups_that_hold(config, model, 1, gpus, longest))


def _smallest_number(config: RunConfig, model: Divided, gpus: Mapping[str, Gpu], longest: int) -> int | None:
    """The smallest number of cards, from two on, that holds the model."""
    numbers = range(2, len(config.devices) + 1)
    return next((n for n in numbers if model.accepts(n) and _groups_that_hold(config, model, n, gpus, longest)), None)


def _most_cards(model: Divided, gpus: Mapping[str, Gpu]) -> int:
    """The largest number of the cards that vllm divides the model over."""
    return max((number for number in range(1, len(gpus) + 1) if model.accepts(number)), default=1)


def _no_number(config: RunConfig, model: Divided, gpus: Mapping[str, Gpu], longest: int) -> str:
    """Why no number of several cards holds a model; "" where vllm divides it over no more than one of them."""
    most = _most_cards(model, gpus)
    if most == 1 and read_shape(config.model) is not None:
        return ""
    needed = model.bytes_on_a_card(most, longest, config.max_concurrent) / GIB
    room = max(_room(config, gpu) for gpu in gpus.values()) / GIB
    each = "one card" if most == 1 else f"each of {most} cards, the most of the {len(gpus)} that vllm divides it over"
    return (
        f"--model {config.model}: {model.weights / GIB:.1f} GiB of weights take {needed:.1f} GiB of {each}, and vllm has {room:.1f} GiB of "
        f"a card; lower --max-seq-len, or {_REMEDY}"
    )


def _given_groups(config: RunConfig, cards: int, gpus: Mapping[str, Gpu], longest: int) -> CardGroups:
    """The groups of a number that the user gives."""
    on_cpu, option = config.devices == ("cpu",), f"--code-cards {cards}"
    there, what = (config.workers, "--workers") if on_cpu else (len(config.devices), "--devices")
    if cards > there:
        raise ConfigError(f"{option}: {what} gives {there}; give more, or fewer --code-cards")
    model = read_divided(config)
    if model is not None and not model.accepts(cards):
        good = [str(number) for number in range(1, there + 1) if model.accepts(number)]
        raise ConfigError(
            f"{option}: the {model.heads} attention heads, {model.kv_heads} key-value heads and {model.mlp_width} values of the MLP of "
            f"{config.model} cannot be divided so; {' or '.join(good)} can be given"
        )
    _check_vllm(f"{option}:")
    if on_cpu:
        return _explained(config, CardGroups((("cpu",),), cards, f"{option} is given"), None)
    known = model is not None and bool(gpus) and all(gpu.gib for gpu in gpus.values())
    groups = _groups_that_hold(config, model, cards, gpus, longest) if known and model else _chunks(config.devices, cards)
    if not groups:
        assert model is not None
        needed, room = model.bytes_on_a_card(cards, longest, config.max_concurrent), max(_room(config, gpu) for gpu in gpus.values())
        raise ConfigError(
            f"{option}: the model takes {needed / GIB:.1f} GiB of each card, and {room / GIB:.1f} GiB are there; leave the option out for "
            f"the number that holds it, or {_REMEDY}"
        )
    return _explained(config, CardGroups(groups, cards, f"{option} is given"), (model, gpus, longest) if known and model else None)


def _explained(config: RunConfig, found: CardGroups, figures: tuple[Divided, Mapping[str, Gpu], int] | None) -> CardGroups:
    """The groups with the whole reason."""
    if config.devices == ("cpu",):
        parts = [f"{found.reason}; divided over {found.cards} processes (tensor parallel)"]
    else:
        workers = f"{len(found.groups)} worker{'s' if len(found.groups) > 1 else ''} on {' and on '.join(map(','.join, found.groups))}"
        parts = [f"{found.reason}; divided over {found.cards} cards (tensor parallel), {workers}"]
    if figures is not None:
        model, gpus, longest = figures
        needed = model.bytes_on_a_card(found.cards, longest, config.max_concurrent)
        room = min(_room(config, gpus[device]) for group in found.groups for device in group)
        parts.append(f"about {needed / GIB:.1f} of the {room / GIB:.1f} GiB that vllm has of each")
    used = {device for group in found.groups for device in group}
    if left := [device for device in config.devices if device not in used and device != "cpu"]:
        parts.append(f"{', '.join(left)} is left to the other sources" if len(left) == 1 else f"{', '.join(left)} are left to the others")
    if config.engine == "transformers":
        parts.append("by vllm in place of --engine transformers, which holds a model on one card")
    return replace(found, reason="; ".join(parts))


def _chunks(devices: tuple[str, ...], cards: int) -> tuple[tuple[str, ...], ...]:
    return tuple(devices[i : i + cards] for i in range(0, len(devices) - cards + 1, cards))


def _groups_that_hold(config: RunConfig, model: Divided, cards: int, gpus: Mapping[str, Gpu], longest: int) -> tuple[tuple[str, ...], ...]:
    """The groups of neighbouring cards each of which holds its part of the model."""
    needed = model.bytes_on_a_card(cards, longest, config.max_concurrent)
    return tuple(group for group in _chunks(config.devices, cards) if all(needed <= _room(config, gpus[device]) for device in group))


def _room(config: RunConfig, gpu: Gpu) -> int:
    """Bytes of a card that vllm has for a model."""
    return int((VLLM_SHARE * gpu.gib * GIB - _BESIDE) / memory_factor(config.measured))


def _check_vllm(place: str) -> None:
    if find_spec("vllm") is None:
        raise ConfigError(f"{place} vllm alone divides a model over several cards, and it is not installed; install it, or {_REMEDY}")


def _refuse(reasons: Mapping[str, str]) -> None:
    for reason in reasons.values():
        raise ConfigError(reason)
