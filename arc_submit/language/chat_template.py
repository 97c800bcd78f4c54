"""Rendering of a tokenizer's chat template, the same on every day.

Some templates write today's date (Llama 3.2, Granite, SmolLM3). A prompt would then differ from the one that the same task had yesterday,
and from those that an adapter was trained on. Every such template gets one fixed date here. Does not know grids or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from jinja2 import TemplateError  # a dependency of transformers, which renders with it

from arc_submit.errors import ConfigError

FIXED_DATE = date(2024, 7, 26)  # what Llama's own templates write where no clock is given


class ChatTemplate:
    """The chat template of a tokenizer.

    Attributes:
        writes_date: whether a rendered text holds the fixed date.

    Raises:
        ConfigError: where the tokenizer has none.
    """

    def __init__(self, tokenizer: Any):
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"the tokenizer of {tokenizer.name_or_path} has no chat template; add chat_template.jinja to the model")
        self._tokenizer = tokenizer
        self.writes_date = False

    def render(self, messages: Sequence[dict[str, str]], generation: bool) -> str:
        """The chat as text.

        Args:
            messages: each with "role" and "content".
            generation: end with the beginning of an answer.

        Raises:
            ConfigError: where the template refuses the messages, such as a system message that the model does not know.
        """

        def strftime_now(form: str) -> str:
            self.writes_date = True
            return FIXED_DATE.strftime(form)

        try:
            # Templates that know enable_thinking (Qwen3) then write no thoughts; others ignore it. A variable hides the function of the
            # same name, which tells the real time.
            text: str = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=generation, enable_thinking=False, strftime_now=strftime_now
            )
        except TemplateError as error:
            roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
            raise ConfigError(
                f"the chat template of {self._tokenizer.name_or_path} refuses a chat with the roles {roles} ({error}); use another prompt"
            ) from None
        return text
