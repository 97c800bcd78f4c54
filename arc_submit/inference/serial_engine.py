"""The transformers engine for layers that keep another state of a prompt than keys and values, such as linear attention or convolutions.

Such a state cannot be cut back or copied into a slot, so requests run one after the other with transformers' own cache and masks. A search
that goes back to a branch, and every continuation that is scored, reads its whole sequence again. Slower than slots, and right wherever
transformers is. Does not know grids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from transformers.cache_utils import DynamicCache

from arc_submit.inference.engine import Completion, OnStep, Request
from arc_submit.inference.transformers_engine import SlotState, TransformersEngine, is_past


class SerialEngine(TransformersEngine):
    """One request at a time. The arguments are those of `TransformersEngine`, whose slots are not used."""

    def _run(
        self, requests: Sequence[Request], start: Callable[[Request], SlotState], on_step: OnStep, deadline: float | None
    ) -> Iterator[Completion]:
        """See `TransformersEngine.run`."""
        for request in sorted(requests, key=lambda r: len(r.prompt) + r.max_new_tokens):
            if is_past(deadline):
                return
            state: SlotState | None = start(request)
            cache, read = DynamicCache(config=self.model.config), [*request.prompt]
            waiting = read
            while state is not None:
                logprobs = self._forward(torch.tensor([waiting], device=self.device), past_key_values=cache)[0, -1].log_softmax(-1)
                if on_step:
                    on_step()
                best = int(logprobs.argmax())
                state = yield from self._take(state, logprobs, (best, float(logprobs[best])))
                following = state.next() if state else None
                if following is None or is_past(deadline):
                    break
                token, index = following
                position = len(request.prompt) + index
                waiting = [token]
                if position < len(read):  # back to a branch: the state holds the abandoned path
                    read = read[:position]
                    cache, waiting = DynamicCache(config=self.model.config), [*read, token]
                read = [*read, token]

    def _score(self, prompt: Sequence[int], continuations: Sequence[Sequence[int]]) -> list[float]:
        scores = []
        for one in continuations:
            ids = torch.tensor([[*prompt, *one]], device=self.device)
            hidden = self.model.get_decoder()(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0, len(prompt) - 1 :]
            scores.append(float(self._sum_logprobs(hidden, ids[0, len(prompt) :])))
        return scores
