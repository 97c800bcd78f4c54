"""The bytes that fine-tuning and prediction take on a GPU, by plain formulas over the shape of a model.

They hold for 16-bit weights of the blocks that Llama, Qwen2 and Qwen3 share, and are upper bounds: tests hold them against a simulated
device on which the project's own code runs. Does not know tasks, cards or what a run does with the figures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arc_submit.base_model.settings import LoraSettings
from arc_submit.errors import ConfigError, DataError

GIB = 2**30
CARDS = {"t4": 14.56, "l4": 22.3, "h100": 79.0, "rtx-pro-6000": 95.0}  # GiB that a program sees
# The CUDA context and the workspaces of libraries, and the gaps that blocks of many sizes leave.
_CONTEXT, _GAPS = 0.6 * GIB, 0.03
LOGITS = 1 << 26  # logits that the loss holds at a time
SHORTEST_SAMPLE = 256  # tokens: shorter samples of fine-tuning are of no use
CACHE_BLOCK = 512  # positions: the slot engine's cache grows by whole blocks
_KINDS = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model.

    Attributes:
        kind: model_type of its config.json: llama, qwen2 or qwen3.
        width, mlp_width: of a position between layers, and inside a layer's MLP.
        heads, kv_heads, head_size: of attention.
        tied: the output layer shares the embeddings' weights.
    """

    kind: str
    layers: int
    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool

    @property
    def config(self) -> dict[str, Any]:
        """The values of a config.json that describes it, as `shape_of` reads them."""
        return {
            "model_type": self.kind,
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "intermediate_size": self.mlp_width,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 32768,
            **({"head_dim": self.head_size} if self.kind == "qwen3" else {}),  # elsewhere it follows from width and heads
        }

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_size

    @property
    def key(self) -> int:
        """Width of all heads of keys."""
        return self.kv_heads * self.head_size

    def linear(self, name: str) -> tuple[int, int]:
        """Inputs and outputs of a layer's linear module; (0, 0) for one that the blocks do not have."""
        width, mlp = self.width, self.mlp_width
        sizes = {"q_proj": (width, self.query), "k_proj": (width, self.key), "v_proj": (width, self.key), "o_proj": (self.query, width)}
        return {**sizes, "gate_proj": (width, mlp), "up_proj": (width, mlp), "down_proj": (mlp, width)}.get(name, (0, 0))

    @property
    def weights(self) -> int:
        """Bytes of the weights."""
        names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
        products = sum(inputs * outputs for inputs, outputs in map(self.linear, names))
        small = 2 * self.width + (self.query + 2 * self.key if self.kind == "qwen2" else 2 * self.head_size if self.kind == "qwen3" else 0)
        return 2 * (self.layers * (products + small) + (1 if self.tied else 2) * self.vocabulary * self.width + self.width)

    @property
    def cache(self) -> int:
        """Bytes of keys and values of one position."""
        return 2 * 2 * self.layers * self.key


_QWEN2 = {"kind": "qwen2", "vocabulary": 151936, "tied": True}
_QWEN3 = {"kind": "qwen3", "vocabulary": 151936, "tied": True, "kv_heads": 8, "head_size": 128}
SIZES = {
    "0.5B": ModelShape(layers=24, width=896, mlp_width=4864, heads=14, kv_heads=2, head_size=64, **_QWEN2),  # type: ignore[arg-type]
    "1.5B": ModelShape(layers=28, width=1536, mlp_width=8960, heads=12, kv_heads=2, head_size=128, **_QWEN2),  # type: ignore[arg-type]
    "7B": ModelShape("qwen2", 28, 3584, 18944, 28, 4, 128, 152064, False),
    "0.6B": ModelShape(layers=28, width=1024, mlp_width=3072, heads=16, **_QWEN3),  # type: ignore[arg-type]
    "1.7B": ModelShape(layers=28, width=2048, mlp_width=6144, heads=16, **_QWEN3),  # type: ignore[arg-type]
    "4B": ModelShape(layers=36, width=2560, mlp_width=9728, heads=32, **_QWEN3),  # type: ignore[arg-type]
    "8B": ModelShape("qwen3", 36, 4096, 12288, 32, 8, 128, 151936, False),
    "1B": ModelShape("llama", 16, 2048, 8192, 32, 8, 64, 128256, True),
    "3B": ModelShape("llama", 28, 3072, 8192, 24, 8, 128, 128256, True),
}
SIZES["NVARC-4B"] = replace(SIZES["4B"], vocabulary=16)


def read_shape(folder: Path) -> ModelShape | None:
    """The shape of the model in a folder, from its config.json; None for blocks that the formulas do not hold for.

    Raises:
        DataError: where the file cannot be read.
    """
    path = folder / "config.json"
    try:
        return shape_of(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a model's configuration ({type(error).__name__}: {error})") from None


def weights_of(folder: Path) -> int:
    """Bytes of a model's weights in 16 bits; 0 for blocks that the formulas do not hold for.

    Raises:
        DataError: where config.json cannot be read.
    """
    shape = read_shape(folder)
    return shape.weights if shape else 0


def shape_of(config: dict[str, Any]) -> ModelShape | None:
    """The shape that a config.json describes; None for blocks, or weights in fewer bits, that the formulas do not hold for."""
    if config.get("model_type") not in _KINDS or config.get("quantization_config"):
        return None
    heads, kv_heads, head_size = heads_of(config)
    return ModelShape(
        kind=config["model_type"],
        layers=int(config["num_hidden_layers"]),
        width=int(config["hidden_size"]),
        mlp_width=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        vocabulary=int(config["vocab_size"]),
        tied=bool(config.get("tie_word_embeddings")),
    )


def heads_of(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """The attention heads, the key-value heads and the size of a head, from the values of a config.json."""
    heads = int(config["num_attention_heads"])
    return heads, int(config.get("num_key_value_heads") or heads), int(config.get("head_dim") or config["hidden_size"] // heads)


def size_named(name: str) -> ModelShape:
    """The shape of a public model by its size, such as 4B.

    Raises:
        ConfigError: where the size is not known.
    """
    if name.upper() not in SIZES:
        raise ConfigError(f"--size {name}: choose from {', '.join(SIZES)}, or give --model a folder")
    return SIZES[name.upper()]


def usable_bytes(card_gib: float) -> int:
    """The bytes of a card that tensors may take: all but a margin of 0.6 GiB and 3 %."""
    return int(card_gib * GIB * (1 - _GAPS) - _CONTEXT)


def _rows_of_last_layer(tokens: int, learnt: int) -> int:
    """Positions that the last layer computes: those of the loss alone where many others are left out."""
    return learnt if tokens - learnt > tokens // 4 else tokens


@dataclass(frozen=True)
class Footprint:
    """What decides the bytes of a model on a card.

    Attributes:
        shape: of the model.
        lora: of the adapter that is trained and served; None for the base model alone.
        old_card: a GPU before sm_80, such as a T4, whose attention reads keys and values that are repeated for every query head.
    """

    shape: ModelShape
    lora: LoraSettings | None = None
    old_card: bool = False

    @property
    def adapter_values(self) -> int:
        """Values of the trained adapter; a served one has twice as many after PiSSA and OLoRA."""
        return self.shape.layers * self._values_of_a_layer() + self._values_at_the_ends()

    def _values_at_the_ends(self) -> int:
        """Values of the factors of embeddings and output layer."""
        if self.lora is None:
            return 0
        each = self.lora.rank * (self.shape.vocabulary + self.shape.width)
        return each * len(self.lora.at_the_ends) + (self.shape.vocabulary if self.lora.dora and "lm_head" in self.lora.targets else 0)

    def _values_of_a_layer(self) -> int:
        if self.lora is None:
            return 0
        sizes = [self.shape.linear(name) for name in self.lora.targets]
        return sum(self.lora.rank * (inputs + outputs) + (outputs if self.lora.dora else 0) for inputs, outputs in sizes)

    @property
    def _decomposed(self) -> bool:
        return self.lora is not None and self.lora.init in ("pissa", "olora")

    @property
    def resident(self) -> int:
        """Bytes that stay beside any work of a worker that fine-tunes: weights; the adapter, its gradient, decomposed weights."""
        return self.shape.weights + (12 if self._decomposed else 8) * self.adapter_values

    def training_peak(self, tokens: int, learnt: int, checkpointing: bool) -> int:
        """Peak bytes of a step of fine-tuning.

        Args:
            tokens: of the samples of one forward pass, padding included.
            learnt: tokens in its loss.
            checkpointing: layers are computed again in the backward pass.
        """
        shape, kept = self.shape, self._kept_for_backward()
        factors = 2 * self._values_of_a_layer()  # in 16 bits
        layer, rows = tokens * kept + factors, _rows_of_last_layer(tokens, learnt)
        inputs = 2 * tokens * shape.width  # of a layer, from which it is computed again
        before = (shape.layers - 1) * (inputs if checkpointing else layer)
        # The last layer and the loss; or, once these are gone, the backward pass of the layer before.
        head = self._work_of_the_head(min(LOGITS, learnt * shape.vocabulary)) + 12 * learnt * shape.width
        shared = tokens * (8 * shape.width + 8 * shape.key + 4 * shape.query) + 3 * tokens * rows  # its keys and values, repeated; its mask
        last = rows * kept + factors + shared + max(head, rows * self._work_of_backward())
        other = tokens * self._work_of_backward() + (layer + inputs if checkpointing else 0)
        ends = 2 * self._values_at_the_ends() + self._work_of_the_embedding(tokens)
        return self.resident + 8 * self.adapter_values + before + max(last, other) + self._weights_of_dora() + ends

    def _work_of_the_head(self, logits: int) -> int:
        """Bytes of the loss of some logits; where the head is trained too, with those of its gradient."""
        if self.lora is None or "lm_head" not in self.lora.targets:
            return 8 * logits
        return 18 * logits + 4 * self.lora.rank * self.shape.vocabulary

    def _work_of_the_embedding(self, tokens: int) -> int:
        """Bytes that a trained embedding keeps for its backward pass, and those of its gradient."""
        if self.lora is None or "embed_tokens" not in self.lora.targets:
            return 0
        return self.lora.rank * (2 * tokens + 4 * self.shape.vocabulary)

    def _kept_for_backward(self) -> int:
        """Bytes of a position that a layer keeps for its backward pass."""
        shape, lora = self.shape, self.lora
        targets = set(lora.targets if lora else ())
        kept = 2 * 4 * shape.width + 6 * shape.mlp_width + 4 * shape.query + 4 * (shape.query if self.old_card else shape.key)
        kept += 4 * (shape.query + shape.key) if shape.kind == "qwen3" else 0
        kept += 2 * shape.width * (bool(targets & {"q_proj", "k_proj", "v_proj"}) + bool(targets & {"gate_proj", "up_proj"}))
        kept += 2 * shape.mlp_width * ("down_proj" in targets) + 4 * shape.heads
        kept += 2 * sum(shape.linear(name)[1] for name in targets) if lora and lora.dora else 0
        return kept + 8 + (4 * (shape.heads + shape.kv_heads) if shape.kind == "qwen3" else 0)

    def _work_of_backward(self) -> int:
        """Bytes of a position in a layer's backward pass, beside what is kept."""
        return max(8 * self.shape.mlp_width, 16 * self.shape.query) + 16 * self.shape.width

    def _weights_of_dora(self) -> int:
        """Bytes of a layer's weight in float32, twice, from whose rows DoRA takes the norms."""
        if self.lora is None or not self.lora.dora:
            return 0
        head = self.shape.vocabulary * self.shape.width if "lm_head" in self.lora.targets else 0
        return 2 * 4 * max(head, *(inputs * outputs for inputs, outputs in map(self.shape.linear, self.lora.targets)))

    def prediction_peak(self, slots: int, longest: int, trains: bool) -> int:
        """Peak bytes of prediction, depth-first search included.

        Args:
            slots: completions generated side by side.
            longest: tokens of the longest prompt with its answer.
            trains: the worker fine-tunes too, and holds what that needs.
        """
        shape = self.shape
        positions = -(-longest // CACHE_BLOCK) * CACHE_BLOCK
        cache = slots * positions * shape.cache
        growth = cache // shape.layers  # the old tensors of one layer beside its new ones
        prompt = longest * (shape.cache + self._work_of_reading())
        logits = 4 * 4 * slots * shape.vocabulary
        return self._serving(trains) + cache + growth + prompt + logits

    def scoring_peak(self, rows: int, prompt: int, answer: int, trains: bool) -> int:
        """Peak bytes of scoring answers of up to `answer` tokens after one prompt, `rows` of them together."""
        shape = self.shape
        read = max(prompt, rows * answer) * self._work_of_reading()
        caches = (prompt + rows * (prompt + answer)) * shape.cache
        growth = rows * (prompt + answer) * shape.cache // shape.layers
        logits = 3 * 4 * answer * shape.vocabulary
        return self._serving(trains) + caches + growth + read + logits

    def _serving(self, trains: bool) -> int:
        served = 2 * self.adapter_values * (2 if self._decomposed else 1)
        return (self.resident if trains else self.shape.weights) + served

    def _work_of_reading(self) -> int:
        """Bytes of a position in a layer's forward pass without gradients."""
        shape = self.shape
        targets = set(self.lora.targets if self.lora else ())
        mlp = (10 if targets & {"gate_proj", "up_proj"} else 6) * shape.mlp_width
        attention = (
            8 * shape.query + 8 * shape.key + (4 * shape.query if self.old_card else 0) + (8 * shape.query if shape.kind == "qwen3" else 0)
        )
        return max(mlp, attention) + 10 * shape.width

    def served_alone(self) -> Footprint:
        """The same without an adapter."""
        return replace(self, lora=None)


@dataclass(frozen=True)
class TrainingPlan:
    """How a task is fine-tuned.

    Attributes:
        tokens: limit of a sample.
        checkpointing: layers are computed again in the backward pass.
        shortened: the limit is below the task's longest sample.
        reason: for people.
        rows: samples in one forward and backward pass; a step of more samples adds their gradients.
    """

    tokens: int
    checkpointing: bool
    shortened: bool
    reason: str
    rows: int = 1

    def cheaper(self, longest: int) -> TrainingPlan | None:
        """The next plan where memory does not suffice for a pass with samples of up to `longest` tokens; None where this is the cheapest.

        Checkpointing and fewer samples in a pass change an adapter by rounding alone. Shorter samples are other samples, so they come last.
        """
        if not self.checkpointing:
            return replace(self, checkpointing=True, reason="with gradient checkpointing")
        if self.rows > 1:
            rows = (self.rows + 1) // 2
            return replace(self, rows=rows, reason=f"with {rows} sample{'s' if rows > 1 else ''} in a pass")
        shorter = min(self.tokens, longest) * 3 // 4
        if shorter < SHORTEST_SAMPLE:
            return None
        return replace(self, tokens=shorter, shortened=True, reason=f"on samples of at most {shorter} tokens")


@dataclass(frozen=True)
class Card:
    """A model on a card: what fits, as a function of a task's lengths alone.

    Attributes:
        room: bytes that tensors may take.
        footprint: of the model and the adapter.
    """

    room: int
    footprint: Footprint

    def plan_training(self, tokens: int, rows: int, checkpointing: bool) -> TrainingPlan:
        """The fastest way to fine-tune on samples of up to `tokens`, at most `rows` of them in a pass.

        Where even one sample with checkpointing does not fit, the longest sample that does, down to the shortest of use.
        """

        def fits(length: int, rows: int, again: bool) -> bool:
            return self.footprint.training_peak(rows * length, rows * length, again) <= self.room

        if not checkpointing and fits(tokens, rows, False):
            return TrainingPlan(tokens, False, False, "fine-tuning fits as it is", rows)
        fewer = rows
        while fewer > 1 and not fits(tokens, fewer, True):
            fewer = (fewer + 1) // 2
        if fits(tokens, fewer, True):
            reason = "fine-tuning fits with gradient checkpointing" + (f" and {fewer} of {rows} samples in a pass" if fewer < rows else "")
            return TrainingPlan(tokens, True, False, reason, fewer)
        shorter = _longest(tokens, lambda length: fits(length, 1, True))
        return TrainingPlan(shorter, True, True, f"samples of at most {shorter} tokens fit in memory, with gradient checkpointing")

    def plan_slots(self, longest: int, most: int, trains: bool, answer: int = 0) -> int:
        """Completions side by side: the largest of most, most / 2, ..., 2 that fits; 0 where none does.

        Args:
            longest: tokens of the longest prompt with its answer.
            trains: the worker fine-tunes too.
            answer: tokens of the longest answer where answers are scored; 0 where none is.
        """
        slots = most
        while slots >= 2:
            peak = self.footprint.prediction_peak(slots, longest, trains)
            # Scoring takes fewer rows where memory does not suffice; one must fit.
            one_row = self.footprint.scoring_peak(1, longest - answer, answer, trains) if answer else 0
            if max(peak, one_row) <= self.room:
                return slots
            slots = slots // 2 if slots > 3 else 0
        return 0

    def longest_request(self, tokens: int, trains: bool) -> int:
        """The longest prompt with its answer, up to `tokens`, that two slots fit."""
        return _longest(tokens, lambda length: self.footprint.prediction_peak(2, length, trains) <= self.room)


def _longest(tokens: int, fits: Callable[[int], bool]) -> int:
    """The largest length up to `tokens`, in steps of 64 below it, that fits; 0 where none does."""
    if fits(tokens):
        return tokens
    low, high = 0, tokens // 64
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(64 * middle) else (low, middle - 1)
    return 64 * low
