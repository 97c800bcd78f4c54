"""The transformers engine for layers that keep another state of a prompt than keys and values, such as linear attention or convolutions.

Such a state cannot be cut back or copied into a slot, so requests run one after the other with transformers' own cache and masks. A search
that goes back to a branch, and every continuation that is scored, reads its whole sequence again. Slower than slots, and right wherever
transformers is. Does not know grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from transformers.cache_utils import DynamicCache

from arc_submit.base_model.out_of_memory import free_cached_memory, is_out_of_memory
from arc_submit.inference.engine import Completion, OnStep, Request, without_memory
from arc_submit.inference.transformers_engine import SlotState, TransformersEngine, is_past


class SerialEngine(TransformersEngine):
    """One request at a time. The arguments are those of `TransformersEngine`, whose slots are not used."""

    def _run(
        self, requests: Sequence[Request], start: Callable[[Request], SlotState], on_step: OnStep, deadline: float | None
    ) -> Iterator[Completion]:
        """See `TransformersEngine._run`; a request for which memory does not suffice fails, and the others go on."""
        for request in sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens):
            if is_past(deadline):
                return
            try:
                yield from self._serve(start(request), on_step, deadline)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            free_cached_memory(self.device)  # outside the handler: the exception holds the tensors of the failed pass
            yield without_memory(request)

    def _serve(self, state: SlotState | None, on_step: OnStep, deadline: float | None) -> Iterator[Completion]:
        """The completions of one request."""
        assert state is not None
        prompt, cache = state.request.prompt, DynamicCache(config=self.model.config)
        waiting = read = [*prompt]
        while state is not None:
            logprobs = self._forward(torch.tensor([waiting], device=self.device), past_key_values=cache)[0, -1].log_softmax(-1)
            if on_step:
                on_step()
            state = yield from self._take(state, self._read(logprobs[None], [state])[0])
            following = state.next() if state else None
            if following is None or is_past(deadline):
                return
            token, index = following
            position = len(prompt) + index
            waiting = [token]
            if position < len(read):  # back to a branch: the state holds the abandoned path
                read = read[:position]
                cache, waiting = DynamicCache(config=self.model.config), [*read, token]
            read = [*read, token]

    def _score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]], given: Sequence[int], on_step: OnStep) -> list[float]:
        scores = []
        for one, count in zip(continuations, given, strict=True):
            ids, start = torch.tensor([[*prompt, *one]], device=self.device), len(prompt) + count
            hidden = self.model.get_decoder()(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0, start - 1 :]
            scores.append(float(self._sum_logprobs(hidden, ids[0, start:])))
            if on_step:
                on_step()
        return scores
