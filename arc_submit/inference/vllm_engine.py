"""The vllm engine: requests given to a vllm engine in this process, step by step, each with its own adapter.

vllm's own LLM.generate returns nothing before the last completion and has no time limit. Here each completion is yielded when it ends, the
caller is called back at every step, and requests that are unfinished at the deadline are aborted. Only as many requests are submitted as
run together, in the order of their adapters, so that few adapters are in use at a time and a completion's seconds are its own. Does not
know grids, tasks or processes; arc_submit.inference.vllm_compat holds the differences between vllm's versions.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from arc_submit.base_model.adapter_files import check_adapter, read_config
from arc_submit.base_model.architecture import check_weights, takes_pictures
from arc_submit.base_model.checks import loaded_bytes
from arc_submit.base_model.device_memory import wait_for_memory
from arc_submit.base_model.loading import choose_dtype, load_tokenizer
from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, NotServedError, OnStep, Request, ScoringMemoryError, group_by_adapter, without_memory
from arc_submit.inference.settings import VLLM_SHARE, VLLM_SHARE_BESIDE_TRAINING
from arc_submit.inference.vllm_compat import (
    RANKS,
    check_kind,
    check_served,
    choose_start,
    make_core,
    prepare_process,
    supported_rank,
    token_prompt,
)

# Tokens between two outputs of an unfinished completion. Each output costs vllm an object; rare outputs let a dead end go on for longer.
_TOKENS_PER_OUTPUT = 8
# Steps without a token after which the engine counts as stuck. A prompt takes a few steps; a queue that vllm cannot serve takes any number.
_IDLE_STEPS = 2000
_MAX_SLOTS = 64


@dataclass(frozen=True)
class MemoryPlan:
    """The share of a device's memory that an engine takes.

    Attributes:
        slots: completions generated side by side.
        adapters: LoRA slots on the device.
        cache_gb: keys and values of all slots at full length, in whole GB.
        reason: for the number of slots.
    """

    slots: int
    adapters: int
    cache_gb: int
    reason: str


_NOT_FINITE = "vllm's log-probabilities are not numbers (NaN): the model's values exceed the range of its dtype, or its weights are damaged"


class EngineStuckError(RuntimeError):
    """vllm keeps stepping without any output; only a fresh process helps."""


@dataclass
class _Running:
    request: Request
    started: float


class VllmEngine:
    """Generation and scoring by vllm, in this process.

    Args:
        core: vllm's LLMEngine, made without a tokenizer.
        skeleton: the base model without weights (on torch's meta device), to check adapters against.
        end_id: the token that ends a completion of a request without end tokens of its own.
        context_length: limit of prompt and generated tokens together.
        slots: completions generated side by side.
        max_rank: the largest rank of an adapter; 0 serves none.

    Attributes:
        cards: devices that the model is divided over, each with a process of its own.
    """

    name = "vllm"
    cards = 1

    def __init__(self, core: Any, skeleton: torch.nn.Module, end_id: int, context_length: int, slots: int, max_rank: int):
        self.core = core
        self.skeleton = skeleton
        self.end_id = end_id
        self.context_length = context_length
        self.slots = slots
        self.max_rank = max_rank
        self._numbers = itertools.count(1)
        self._loras: dict[Path, Any] = {}

    def generate(self, requests: Sequence[Request], on_step: OnStep = None, deadline: float | None = None) -> Iterator[Completion]:
        """See `Engine.generate`. Requests of one adapter run together, otherwise in the given order.

        An adapter that cannot be loaded fails its own requests and no others. Where memory does not suffice for a step, its requests begin
        again, half as many of them together; one that does not fit alone fails, and the others go on.

        Raises:
            EngineStuckError: where the steps give no output any more.
        """
        waiting = deque(request for group in group_by_adapter(self, requests).values() for request in group)
        running: dict[str, _Running] = {}
        idle_steps, base_runs, together = 0, True, self.slots
        try:
            while waiting or running:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                while waiting and len(running) < together:
                    # In a batch with adapters, vllm on a CPU applies the last LoRA slot's weights to base requests, without an error
                    # (vllm pull request 48421). Requests with and without an adapter therefore never run together.
                    if running and (waiting[0].adapter is None) != base_runs:
                        break
                    request = waiting.popleft()
                    base_runs = request.adapter is None
                    try:
                        lora = self._lora(request.adapter)
                    except ConfigError as error:
                        yield Completion(request.id, [], 0.0, "failed", 0.0, str(error))
                        continue
                    key = str(next(self._numbers))
                    self.core.add_request(key, token_prompt(request.prompt), self._sampling(request), lora_request=lora)
                    running[key] = _Running(request, time.monotonic())
                if not running:
                    continue
                outputs = self._step()
                if on_step:
                    on_step()
                if outputs is None:
                    self.core.abort_request(list(running))
                    lost, running = [state.request for state in running.values()], {}
                    together = max(1, len(lost) // 2)
                    if len(lost) == 1:
                        yield without_memory(lost.pop())
                    waiting.extendleft(reversed(lost))
                    print(f"out of memory: {together} answers side by side from here on", flush=True)
                    continue
                idle_steps = 0 if outputs else idle_steps + 1
                if idle_steps >= _IDLE_STEPS:
                    raise EngineStuckError(f"vllm: {idle_steps} steps with {len(running)} requests and not one token")
                for output in outputs:
                    state = running.get(output.request_id)
                    completion = self._completion(state, output) if state else None
                    if completion:
                        if not output.finished:
                            self.core.abort_request([output.request_id])
                        del running[output.request_id]
                        yield completion
        finally:
            # Also where the caller drops the iterator or a step raises: the next call needs an empty engine.
            if running:
                self.core.abort_request(list(running))

    def score(
        self,
        prompt: Sequence[int],
        continuations: Sequence[Sequence[int]],
        adapter: Path | None = None,
        given: Sequence[int] = (),
        on_step: OnStep = None,
    ) -> list[float]:
        """See `Engine.score`.

        vllm uses no prefix cache for requests of prompt log-probabilities, so the prompt is read again for every continuation. The
        transformers engine is the faster one for scoring.

        Raises:
            ScoringMemoryError: where memory does not suffice for a single continuation.
            ConfigError: where a continuation is empty or exceeds the context length, or the adapter cannot be served.
        """

        longest = max(map(len, continuations), default=0)
        if not prompt or not all(continuations) or len(prompt) + longest >= self.context_length:  # vllm generates one token as well
            raise ConfigError(
                f"cannot score {len(prompt)} prompt tokens with continuations of up to {longest}: "
                f"vllm takes 1 to {self.context_length - 1} in all"
            )
        if adapter is not None:
            self.check_adapter(adapter)
        starts = [len(prompt) + count for count in given or [0] * len(continuations)]
        scores = self._score([[*prompt, *one] for one in continuations], starts, self._lora(adapter), on_step)
        if any(map(math.isnan, scores)):
            raise ConfigError(_NOT_FINITE)
        return scores

    def _score(self, samples: Sequence[Sequence[int]], starts: Sequence[int], lora: Any, on_step: OnStep) -> list[float]:
        """`score` for arguments that are in order; where memory does not suffice for all together, one half after the other.

        Args:
            samples: each prompt with its continuation.
            starts: where in each the tokens begin that count.
        """
        from vllm import SamplingParams

        sampling = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        scores: dict[str, float] = {}
        keys = {str(next(self._numbers)): start for start in starts}
        try:
            for key, sample in zip(keys, samples, strict=True):
                self.core.add_request(key, token_prompt(list(sample)), sampling, lora_request=lora)
            for _ in range(_IDLE_STEPS + 10 * len(keys)):
                if len(scores) == len(keys):
                    break
                outputs = self._step()
                if outputs is None:
                    break
                if on_step:
                    on_step()
                for output in outputs:
                    if output.finished:
                        start = keys[output.request_id]
                        positions = zip(output.prompt_logprobs[start:], output.prompt_token_ids[start:], strict=True)
                        scores[output.request_id] = sum(logprobs[token].logprob for logprobs, token in positions)
            else:
                raise EngineStuckError(f"vllm: {len(keys) - len(scores)} continuations are not scored and never will be")
        finally:
            self.core.abort_request([key for key in keys if key not in scores])
        if len(scores) == len(keys):
            return [scores[key] for key in keys]
        if len(keys) == 1:
            raise ScoringMemoryError(
                f"out of memory with {starts[0]} prompt tokens and an answer of {len(samples[0]) - starts[0]}; lower --max-seq-len, or use "
                "a device with more memory"
            )
        half = len(keys) // 2
        return [
            *self._score(samples[:half], starts[:half], lora, on_step),
            *self._score(samples[half:], starts[half:], lora, on_step),
        ]

    def _step(self) -> Any:
        """The outputs of vllm's next step; None where memory does not suffice for it."""
        try:
            return self.core.step()
        except Exception as error:
            # The processes of other cards may wait for the one that failed, in the middle of a step: only fresh ones go on.
            if self.cards > 1 or not is_out_of_memory(error):
                raise
        free_cached_memory(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # outside the handler: the error holds tensors
        return None

    def check_adapter(self, folder: Path) -> None:
        """See `Engine.check_adapter`."""
        check_kind(folder)
        config, names = check_adapter(folder, self.skeleton)
        if config.largest_rank > self.max_rank:
            raise NotServedError(
                f"adapter {folder}: rank {config.largest_rank}, the engine was started for up to {self.max_rank};"
                " start it with a larger one"
            )
        for name in names:  # a configuration with an expression names no layer
            if name.rpartition(".")[2] in ("lm_head", "embed_tokens"):
                raise NotServedError(f"adapter {folder}: adapts {name}, which vllm does not serve; leave it out of target_modules")
        check_served(folder, config)

    def _lora(self, folder: Path | None) -> Any:
        """vllm's LoRARequest of an adapter, loaded here so that a broken adapter raises before any step depends on it.

        Raises:
            ConfigError: where it cannot be loaded.
        """
        if folder is None:
            return None
        from vllm.lora.request import LoRARequest

        if folder not in self._loras:
            # A number is used once in an engine's life: vllm's prefix cache identifies an adapter by it.
            number = next(self._numbers)
            lora = LoRARequest(f"{number}-{folder.name}", number, str(folder))
            try:
                self.core.add_lora(lora)
            except Exception as error:  # noqa: BLE001 - vllm raises many kinds for a broken file
                with contextlib.suppress(Exception):
                    self.core.remove_lora(number)
                raise ConfigError(f"adapter {folder}: vllm cannot load it ({type(error).__name__}: {error}); train it again") from None
            self._loras[folder] = lora
        return self._loras[folder]

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=request.temperature,
            seed=request.seed if request.temperature > 0 else None,
            max_tokens=request.max_new_tokens,
            stop_token_ids=list(request.end_ids or (self.end_id,)),
            ignore_eos=True,  # the request names the end tokens, those of the model's generation config among them
            logprobs=0,  # of the chosen token alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.CUMULATIVE,
        )

    def _completion(self, state: _Running, output: Any) -> Completion | None:
        """The completion of a request, or None while the request goes on."""
        answer = output.outputs[0]
        tokens = list(answer.token_ids)
        if math.isnan(answer.cumulative_logprob or 0.0):
            return Completion(state.request.id, [], 0.0, "failed", time.monotonic() - state.started, _NOT_FINITE)
        finished: Literal["stop", "length", "dead_end"]
        if output.finished:
            finished = "stop" if tokens and tokens[-1] in (state.request.end_ids or (self.end_id,)) else "length"
        elif state.request.dead_end is not None and state.request.dead_end(tokens):
            finished = "dead_end"
        else:
            return None
        return Completion(state.request.id, tokens, answer.cumulative_logprob, finished, time.monotonic() - state.started)


def plan_memory(free: int, bytes_per_token: int, context_length: int, slots: int | None, adapters: int, views: int) -> MemoryPlan:
    """Choose the numbers of slots and of adapters on a device.

    Args:
        free: bytes beside the model's weights.
        bytes_per_token: of keys and values.
        context_length: tokens of the longest prompt with its completion.
        slots: the requested number; None takes as many as fit.
        adapters: number of adapters in all.
        views: requests that come with each adapter.
    """
    bytes_per_slot = bytes_per_token * context_length
    fitting = max(1, free // max(1, bytes_per_slot))
    chosen = min(slots or _MAX_SLOTS, _MAX_SLOTS)
    if slots is None:
        chosen = max(2, min(chosen, fitting))
    reason = f"{chosen} answers together: {fitting} of {context_length} tokens fit beside the weights, more than {_MAX_SLOTS} are no faster"
    # The adapters of one batch, and one more, which is loaded while the last one's completions end.
    together = min(adapters, -(-chosen // max(1, views)) + 1, 8)
    return MemoryPlan(chosen, together, -(-chosen * bytes_per_slot // 2**30) or 1, reason)


@dataclass(frozen=True)
class Serving:
    """What an engine is to serve, and how it starts.

    Attributes:
        adapters: the existing adapters: their number and their largest rank decide the memory for LoRA.
        views: requests that come with each adapter.
        plain: start without compiled graphs and without FlashInfer.
        later_rank: rank of adapters that come later, from a training in this process; 0: none do. Half of a GPU is then left to it.
        cards: devices that the model is divided over (tensor parallel), the first ones that this process sees; on a CPU, processes.
    """

    adapters: Sequence[Path] = ()
    views: int = 8
    plain: bool = False
    later_rank: int = 0
    cards: int = 1


def _free_share(device: torch.device, weights: int, wanted: float) -> float:
    """The share of a GPU's memory, at most `wanted`, that other processes leave after a wait for it.

    Raises:
        DeviceFullError: where the weights do not fit into it.
    """
    if device.type != "cuda":
        return wanted
    total = torch.cuda.get_device_properties(device).total_memory
    needed = int(wanted * total)
    available = wait_for_memory(device, needed, min(weights, needed))
    return wanted if available >= needed else math.floor(100 * available / total - 1) / 100


def load_vllm_engine(
    folder: Path, device: torch.device, context_length: int, slots: int | None = None, serving: Serving | None = None
) -> tuple[VllmEngine, Any, str]:
    """An engine and its tokenizer from a model's folder, and the reasons for its dtype, its start, slots and LoRA memory.

    Args:
        context_length: limit of prompt and generated tokens together; memory is reserved for no longer ones.
        slots: completions generated side by side; None takes as many as fit.

    Raises:
        ConfigError: where the model, its dtype or vllm itself cannot work here.
    """
    serving = serving or Serving()
    adapters, views, cards = serving.adapters, serving.views, serving.cards
    tokenizer = load_tokenizer(folder)
    dtype, dtype_reason = choose_dtype(device)
    start, start_reason = choose_start(device, serving.plain, cards)
    skeleton = check_weights(folder, quantised=True)
    config = skeleton.config
    if takes_pictures(folder):
        raise ConfigError(f"model {folder}: also takes pictures, and its text part is served by --engine transformers alone")
    ranks = []
    for path in adapters:
        with contextlib.suppress(ConfigError):  # a broken adapter is reported by the request that names it
            ranks.append(read_config(path).largest_rank)
    ranks = [rank for rank in ranks if rank <= RANKS[-1]]  # an adapter of a larger rank fails alone, in check_adapter
    ranks += [serving.later_rank] if serving.later_rank else []
    rank = supported_rank(max(ranks)) if ranks else 0
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_per_token = 2 * config.num_hidden_layers * max(1, config.num_key_value_heads // cards) * head_size * dtype.itemsize
    weights = min(sum(parameter.numel() for parameter in skeleton.parameters()) * dtype.itemsize, loaded_bytes(folder)) // cards
    # vllm refuses to start where less than this share of a device is free; the rest is for the CUDA context and uncounted buffers.
    wanted = VLLM_SHARE_BESIDE_TRAINING if serving.later_rank else VLLM_SHARE
    devices = [torch.device("cuda", number) for number in range(cards)] if device.type == "cuda" else [device]
    share = min(_free_share(one, weights, wanted) for one in devices)
    smallest = min(torch.cuda.mem_get_info(one)[1] for one in devices) if device.type == "cuda" else 0
    free = int(share * smallest) - weights if device.type == "cuda" else 4 * 2**30
    memory = plan_memory(free, bytes_per_token, context_length, slots, max(len(adapters), 1 if rank else 0), views)
    prepare_process(device, memory.cache_gb, cards)
    lora = {
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": memory.adapters,
        # Few are held on the host: all requests of an adapter run one after the other, and then it is not used again.
        "max_cpu_loras": 2 * memory.adapters,
    }
    core = make_core(
        model=str(folder),
        tokenizer=str(folder),
        skip_tokenizer_init=True,
        dtype=str(dtype).removeprefix("torch."),
        max_model_len=context_length,
        max_num_seqs=memory.slots,
        # The tokens that one step reads: few enough that a step, and so a heartbeat, takes a few seconds on a T4.
        max_num_batched_tokens=max(2048, context_length) if device.type == "cuda" else context_length + memory.slots,
        gpu_memory_utilization=share,
        enable_prefix_caching=True,
        **start,
        # In this process: a kill leaves no process behind. Each of several cards has a process, which is bound to this one.
        distributed_executor_backend="uni" if cards == 1 else "mp",
        tensor_parallel_size=cards,
        disable_log_stats=True,
        stream_interval=_TOKENS_PER_OUTPUT,
        load_format="safetensors",
        trust_remote_code=False,
        seed=0,
        **(lora if rank else {}),
        # A prompt read in two steps resets its request's random generator, which vllm 0.32 cannot do on a CPU.
        **({"enable_chunked_prefill": False} if device.type == "cpu" else {}),
    )
    served = f"adapters up to rank {rank}, {memory.adapters} at a time" if rank else "no adapters"
    engine = VllmEngine(core, skeleton, tokenizer.eos_token_id, context_length, memory.slots, rank)
    engine.cards = cards
    divided = f"; divided over {cards} {'cards' if device.type == 'cuda' else 'processes'}" if cards > 1 else ""
    return engine, tokenizer, f"{dtype_reason}; {start_reason}; {memory.reason}; {served}{divided}"
