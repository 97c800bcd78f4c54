"""The parity probe: our forward passes of a loaded model against transformers' plain one, on short prompts, before the first task.

The reference reads the whole sequence without a cache and with transformers' own "eager" attention, which knows every feature of its
architectures. While a model is probed its sliding windows are a few tokens long, on both sides, so that short prompts exceed them: the code
that is compared is that of the long windows, and a model of 7B is probed in seconds. Does not know engines or losses, which it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from arc_submit.base_model.checks import said
from arc_submit.base_model.out_of_memory import is_out_of_memory
from arc_submit.base_model.precision import explain_not_finite
from arc_submit.errors import ArcSubmitError, ConfigError

_WINDOW = 12  # tokens of a sliding window while a model is probed
_LENGTHS = (29, 7)  # of the prompts
_NEW = 4  # tokens behind a prompt
# What may make a model's forward pass another one than that of plain layers of keys and values.
_KEYS = (
    "layer_types",
    "sliding_window",
    "attention_chunk_size",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logits_scaling",
    "logit_scale",
    "num_kv_shared_layers",
    "rope_parameters",
)


@dataclass(frozen=True)
class Probe:
    """Prompts, tokens to continue them with, and what the reference says.

    Attributes:
        model: the probed model.
        prompts: token ids of different lengths.
        continuation: token ids behind each prompt.
        reference: by prompt, log-probabilities of the tokens of the continuation, float32, (continuation, vocabulary).
        exact: whether our forward pass computes in float32.
    """

    model: Any
    prompts: tuple[list[int], ...]
    continuation: list[int]
    reference: tuple[torch.Tensor, ...]
    exact: bool

    @property
    def sums(self) -> list[float]:
        """By prompt, the reference's log-probability of the whole continuation."""
        ids = torch.tensor(self.continuation, device=self.reference[0].device)[:, None]
        return [float(one.gather(1, ids).sum()) for one in self.reference]

    def compare(self, what: str, ours: Callable[[Probe], Sequence[torch.Tensor]]) -> float:
        """Compare log-probabilities, by prompt (continuation, vocabulary); returns the largest difference of a position, in nats.

        The difference of a position is the Kullback-Leibler divergence: that of tokens that hardly ever come counts as little.

        Raises:
            ConfigError: where they differ by more than the dtype explains, or the model cannot be run so.
        """
        divergence = max(
            float((wanted.double().exp() * (wanted.double() - found.double())).sum(-1).mean())
            for wanted, found in zip(self.reference, self._run(what, ours), strict=True)
        )
        return self._judge(what, divergence, 1e-4 if self.exact else 0.1)

    def compare_sums(self, what: str, ours: Callable[[Probe], Sequence[float]]) -> float:
        """Compare, by prompt, log-probabilities of the continuation; returns the largest difference in nats for a token.

        Raises:
            ConfigError: as `compare` does.
        """
        difference = max(abs(wanted - found) for wanted, found in zip(self.sums, self._run(what, ours), strict=True))
        return self._judge(what, difference / len(self.continuation), 2e-3 if self.exact else 0.75)

    def _run(self, what: str, ours: Callable[[Probe], Any]) -> Any:
        try:
            return ours(self)
        except ArcSubmitError:
            raise
        except Exception as error:
            if isinstance(error, RuntimeError) and ("CUDA" in str(error) or is_out_of_memory(error)):
                raise
            raise ConfigError(f"{self._place}: {what} is not possible ({said(error)}); {self._remedy}") from None

    def _judge(self, what: str, difference: float, allowed: float) -> float:
        if not difference <= allowed:
            raise ConfigError(
                f"{self._place}: {what} differs from transformers' own forward pass by {difference:.2g} nats a token ({allowed:g} is "
                f"allowed in {'float32' if self.exact else '16 bits'}); {self._remedy}"
            )
        return difference

    @property
    def _place(self) -> str:
        kinds = sorted({type(layer).__name__ for layer in getattr(self.model.get_decoder(), "layers", ())})
        return f"model {self.model.config.name_or_path} ({', '.join(kinds) or type(self.model).__name__})"

    @property
    def _remedy(self) -> str:
        config = self.model.config
        present = [f"{key} {value}"[:120] for key in _KEYS if (value := getattr(config, key, None)) is not None]
        return f"config.json has {'; '.join(present) or 'no key that is known to matter'}; give another model, or take --engine vllm"


@contextmanager
def probing(model: Any, exact: bool | None = None) -> Iterator[Probe]:
    """A probe of a loaded model, whose windows are short within this context.

    Args:
        exact: whether our forward pass computes in float32; None: as the model's dtype says.

    Raises:
        ConfigError: where the reference's logits are not numbers, or transformers cannot run the model.
    """
    generator = torch.Generator().manual_seed(0)
    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, size, (sum(_LENGTHS) + _NEW,), generator=generator).tolist()
    continuation, first, second = ids[:_NEW], ids[_NEW : _NEW + _LENGTHS[0]], ids[_NEW + _LENGTHS[0] :]
    with _short_windows(model):
        probe = Probe(model, (first, second), continuation, (), bool(model.dtype == torch.float32) if exact is None else exact)
        reference = probe._run("transformers' own forward pass", _reference)
        if not all(bool(one.isfinite().any(-1).all()) for one in reference):
            raise ConfigError(explain_not_finite(model))
        yield replace(probe, reference=tuple(reference))


@torch.no_grad()
def _reference(probe: Probe) -> list[torch.Tensor]:
    """transformers' own log-probabilities of the continuation, by prompt."""
    model, attention = probe.model, probe.model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        found = []
        for prompt in probe.prompts:
            ids = torch.tensor([prompt + probe.continuation[:-1]], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
            found.append(logits.float().log_softmax(-1))
        return found
    finally:
        model.set_attn_implementation(attention)


@contextmanager
def _short_windows(model: Any) -> Iterator[None]:
    """The sliding windows of configuration and layers, made so short that the probe's prompts exceed them."""
    holders = [model.config, *(module for module in model.modules() if isinstance(getattr(module, "sliding_window", None), int))]
    held = [(holder, holder.sliding_window) for holder in holders if isinstance(getattr(holder, "sliding_window", None), int)]
    try:
        for holder, window in held:
            holder.sliding_window = min(window, _WINDOW)
        yield
    finally:
        for holder, window in held:
            holder.sliding_window = window
