"""The vllm engine: requests put into a vllm engine that lives in this process, step by step, each with its own adapter.

vllm's own LLM.generate keeps every output until the last has ended and waits without a limit. Here each completion is given the moment it
ends, the caller hears of every step, and whatever has not ended at a given time is aborted. Only as many requests are handed
over as run together, in the order of their adapters, so that few adapters are in use at once and the seconds of a completion are its
own. Knows nothing about grids, tasks or processes; arc_submit.inference.vllm_compat knows how vllm's versions differ.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from arc_submit.base_model.adapter_files import check_adapter, read_config
from arc_submit.base_model.loading import choose_dtype, load_tokenizer
from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, NotServedError, Request, check_requests
from arc_submit.inference.vllm_compat import RANKS, check_served, make_core, prepare_process, rank_slot, stop_core, token_prompt

# Tokens between two looks at an unfinished answer: each look costs vllm an output object, and a hopeless answer a few tokens.
_LOOK = 8
# Steps without a token after which the engine is stuck: a prompt takes a few of them, a queue that vllm cannot serve any number.
_IDLE_STEPS = 2000
_MOST_SLOTS = 64


@dataclass(frozen=True)
class Memory:
    """What an engine takes of a device.

    Attributes:
        slots: answers written together.
        adapters: LoRA slots on the device.
        cache_gb: keys and values of all slots at full length, in whole GB.
        reason: how the slots were found.
    """

    slots: int
    adapters: int
    cache_gb: int
    reason: str


class EngineStuckError(RuntimeError):
    """vllm goes on stepping and nothing comes of it; only a fresh process helps."""


@dataclass
class _Running:
    request: Request
    started: float


class VllmEngine:
    """Generation and scoring by vllm, in this process.

    Args:
        core: vllm's LLMEngine, with the tokenizer left out.
        skeleton: the base model without weights (on torch's meta device), to check adapters against.
        end_id: the token that ends an answer.
        limit: tokens of a prompt with its answer.
        slots: answers written together.
        max_rank: the largest rank an adapter may have; 0 serves none.
    """

    name = "vllm"

    def __init__(self, core: Any, skeleton: torch.nn.Module, end_id: int, limit: int, slots: int, max_rank: int):
        self.core = core
        self.skeleton = skeleton
        self.end_id = end_id
        self.limit = limit
        self.slots = slots
        self.max_rank = max_rank
        self._numbers = itertools.count(1)
        self._adapters: dict[Path, Any] = {}

    def generate(
        self, requests: Sequence[Request], on_step: Callable[[], None] | None = None, until: float | None = None
    ) -> Iterator[Completion]:
        """Completions, each given as soon as it ends; requests of one adapter run together, else in the order given.

        An adapter that turns out to be broken when it is loaded fails its own requests and no others.

        Args:
            on_step: called after every step of the engine.
            until: on the monotonic clock; what has not ended by then is aborted and gives no completion.

        Raises:
            ConfigError: where a request is over the model's limit or its adapter cannot be served; nothing has been generated then.
            EngineStuckError: where no step brings anything any more.
        """
        check_requests(requests, self.limit)
        order: dict[Path | None, list[Request]] = {}
        for request in requests:
            order.setdefault(request.adapter, []).append(request)
        for folder in order:
            if folder is not None:
                self.check_adapter(folder)
        waiting = deque(request for group in order.values() for request in group)
        running: dict[str, _Running] = {}
        idle, base = 0, True
        try:
            while waiting or running:
                if until is not None and time.monotonic() >= until:
                    return
                while waiting and len(running) < self.slots:
                    # vllm on a CPU gives a base request in a batch with adapters the weights of the last adapter slot, without a word
                    # (vllm pull request 48421): the two never run together.
                    if running and (waiting[0].adapter is None) != base:
                        break
                    request = waiting.popleft()
                    base = request.adapter is None
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
                outputs = self.core.step()
                if on_step:
                    on_step()
                idle = 0 if outputs else idle + 1
                if idle >= _IDLE_STEPS:
                    raise EngineStuckError(f"vllm: {idle} steps with {len(running)} requests and not one token")
                for output in outputs:
                    state = running.get(output.request_id)
                    completion = self._completion(state, output) if state else None
                    if completion:
                        if completion.finished == "hopeless":
                            self.core.abort_request([output.request_id])
                        del running[output.request_id]
                        yield completion
        finally:
            # Also where the caller goes away or a step raises: the next call must find the engine empty.
            if running:
                self.core.abort_request(list(running))

    def score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], adapter: Path | None = None) -> list[float]:
        """Natural log of the probability of each continuation after the prompt.

        vllm reads no prefix cache where it is asked for a prompt's log-probabilities: the prompt is read once for every continuation, and
        the transformers engine is the faster one for this.

        Raises:
            ConfigError: where one is empty or over the model's limit, or the adapter cannot be served.
        """
        from vllm import SamplingParams

        longest = max(map(len, continuations), default=0)
        if not prompt or not all(continuations) or len(prompt) + longest >= self.limit:
            raise ConfigError(
                f"cannot score {len(prompt)} prompt tokens with continuations of up to {longest}: vllm takes 1 to {self.limit - 1} in all"
            )
        if adapter is not None:
            self.check_adapter(adapter)
        lora = self._lora(adapter)
        asked = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        scores: dict[str, float] = {}
        keys = [str(next(self._numbers)) for _ in continuations]
        try:
            for key, continuation in zip(keys, continuations, strict=True):
                self.core.add_request(key, token_prompt([*prompt, *continuation]), asked, lora_request=lora)
            for _ in range(_IDLE_STEPS + 10 * len(keys)):
                if len(scores) == len(keys):
                    break
                for output in self.core.step():
                    if output.finished:
                        places = zip(output.prompt_logprobs[len(prompt) :], output.prompt_token_ids[len(prompt) :], strict=True)
                        scores[output.request_id] = sum(place[token].logprob for place, token in places)
            else:
                raise EngineStuckError(f"vllm: {len(keys) - len(scores)} continuations are not scored and never will be")
        finally:
            self.core.abort_request([key for key in keys if key not in scores])
        return [scores[key] for key in keys]

    def check_adapter(self, folder: Path) -> None:
        """Refuse an adapter that cannot be served.

        Raises:
            NotServedError: where it is sound, and not for vllm.
            ConfigError: naming it and what is wrong.
        """
        config, names = check_adapter(folder, self.skeleton)
        if config.largest_rank > self.max_rank:
            raise NotServedError(
                f"adapter {folder}: rank {config.largest_rank}, the engine was started for up to {self.max_rank};"
                " start it with a larger one"
            )
        if config.dora:
            raise NotServedError(f"adapter {folder}: uses DoRA, which vllm does not serve; take --engine transformers")
        for name in names:
            if name.rpartition(".")[2] in ("lm_head", "embed_tokens"):
                raise NotServedError(f"adapter {folder}: adapts {name}, which vllm does not serve; leave it out of target_modules")
        check_served(folder, config)

    def close(self) -> None:
        """Let vllm go."""
        stop_core(self.core)

    def _lora(self, folder: Path | None) -> Any:
        """vllm's request for an adapter, loaded now, so that a broken one is found before a step depends on it.

        Raises:
            ConfigError: where it cannot be loaded.
        """
        if folder is None:
            return None
        from vllm.lora.request import LoRARequest

        if folder not in self._adapters:
            # The number makes name, id and so the key of the prefix cache new for every adapter of this engine's life.
            number = next(self._numbers)
            lora = LoRARequest(f"{number}-{folder.name}", number, str(folder))
            try:
                self.core.add_lora(lora)
            except Exception as error:  # noqa: BLE001 - vllm raises many kinds for a broken file
                with contextlib.suppress(Exception):
                    self.core.remove_lora(number)
                raise ConfigError(f"adapter {folder}: vllm cannot load it ({type(error).__name__}: {error}); train it again") from None
            self._adapters[folder] = lora
        return self._adapters[folder]

    def _sampling(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            temperature=request.temperature,
            seed=request.seed if request.temperature > 0 else None,
            max_tokens=request.max_new_tokens,
            stop_token_ids=[self.end_id],
            ignore_eos=True,  # the model's own list may hold others; the tokenizer's end mark is the one that counts
            logprobs=0,  # of the taken token alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.CUMULATIVE,
        )

    def _completion(self, state: _Running, output: Any) -> Completion | None:
        """What came of a request, or nothing while it goes on."""
        answer = output.outputs[0]
        tokens = list(answer.token_ids)
        finished: Literal["stop", "length", "hopeless"]
        if output.finished:
            finished = "stop" if tokens and tokens[-1] == self.end_id else "length"
        elif state.request.hopeless is not None and state.request.hopeless(tokens):
            finished = "hopeless"
        else:
            return None
        return Completion(state.request.id, tokens, answer.cumulative_logprob, finished, time.monotonic() - state.started)


def choose_memory(free: int, weights: int, cache_per_token: int, limit: int, slots: int | None, adapters: int, views: int) -> Memory:
    """How much runs together on a device, with the reason.

    Args:
        free: bytes that the engine may take.
        weights: bytes of the model's.
        cache_per_token: bytes of keys and values.
        limit: tokens of the longest prompt with its answer.
        slots: what was asked for; None takes as many as fit.
        adapters: how many there are in all.
        views: requests that come with each adapter.
    """
    each = cache_per_token * limit
    fitting = max(1, (free - weights) // max(1, each))
    chosen = min(slots or _MOST_SLOTS, _MOST_SLOTS)
    if slots is None:
        chosen = max(2, min(chosen, fitting))
    reason = f"{chosen} answers together: {fitting} of {limit} tokens fit beside the weights, more than {_MOST_SLOTS} are no faster"
    # Those of the adapters that share a batch, and one more, which is loaded while the last one's answers end.
    together = min(adapters, -(-chosen // max(1, views)) + 1, 8)
    return Memory(chosen, together, -(-chosen * each // 2**30) or 1, reason)


def load_vllm_engine(
    folder: Path,
    device: torch.device,
    limit: int,
    slots: int | None = None,
    adapters: Sequence[Path] = (),
    views: int = 8,
    max_rank: int | None = None,
) -> tuple[VllmEngine, Any, str]:
    """An engine and its tokenizer from a model's folder, and the reasons for what was chosen.

    Args:
        limit: tokens of a prompt with its answer; memory is kept for no more.
        slots: answers written together; None takes as many as fit.
        adapters: those that are there already: how many there are and their ranks decide what memory LoRA takes.
        views: requests that come with each adapter.
        max_rank: the largest rank of adapters; None takes the largest that is there.

    Raises:
        ConfigError: where the model, its dtype or vllm itself cannot work here.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"model {folder}: its tokenizer has no end mark; set eos_token in tokenizer_config.json")
    dtype, reason = choose_dtype(device)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        with torch.device("meta"):
            skeleton = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {folder}: cannot be loaded ({error})") from None
    ranks = []
    for path in adapters:
        with contextlib.suppress(ConfigError):  # a broken one is named when it is asked for
            ranks.append(read_config(path).largest_rank)
    ranks = [rank for rank in ranks if rank <= RANKS[-1]]  # one over the largest is refused alone
    rank = rank_slot(max_rank or max(ranks)) if max_rank or ranks else 0
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache_per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * dtype.itemsize
    weights = sum(parameter.numel() for parameter in skeleton.parameters()) * dtype.itemsize
    # vllm refuses to start where less than this share is free; the rest is for the CUDA context and what is not counted.
    share = 0.9
    free = int(share * torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else 4 * 2**30 + weights
    memory = choose_memory(free, weights, cache_per_token, limit, slots, max(len(adapters), 1 if rank else 0), views)
    prepare_process(device, memory.cache_gb)
    lora = {
        "enable_lora": True,
        "max_lora_rank": rank,
        "max_loras": memory.adapters,
        # On the host beside those on the device: an adapter is asked for by its few views in a row and then never again.
        "max_cpu_loras": 2 * memory.adapters,
    }
    core = make_core(
        model=str(folder),
        tokenizer=str(folder),
        skip_tokenizer_init=True,
        dtype=str(dtype).removeprefix("torch."),
        max_model_len=limit,
        max_num_seqs=memory.slots,
        # A step reads at most so many tokens: few enough that a heartbeat comes every few seconds from a T4, too.
        max_num_batched_tokens=max(2048, limit) if device.type == "cuda" else limit + memory.slots,
        gpu_memory_utilization=share,
        enable_prefix_caching=True,
        # A CPU gains nothing from compiled graphs; on a GPU they pay for the minute that they take.
        enforce_eager=device.type == "cpu",
        # In this process: nothing is left behind by a kill.
        distributed_executor_backend="uni",
        disable_log_stats=True,
        stream_interval=_LOOK,
        load_format="safetensors",
        seed=0,
        **(lora if rank else {}),
        # A prompt read in two steps winds its request's generator back, which vllm 0.32 cannot do on a CPU.
        **({"enable_chunked_prefill": False} if device.type == "cpu" else {}),
    )
    served = f"adapters up to rank {rank}, {memory.adapters} at a time" if rank else "no adapters"
    engine = VllmEngine(core, skeleton, tokenizer.eos_token_id, limit, memory.slots, rank)
    return engine, tokenizer, f"{reason}; {memory.reason}; {served}"
