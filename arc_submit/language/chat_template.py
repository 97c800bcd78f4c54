"""Rendering of a chat as text: by a chat template, the same on every day, or without one.

Some templates write today's date (Llama 3.2, Granite, SmolLM3). A prompt would then differ from the one that the same task had yesterday,
and from those that an adapter was trained on. Every such template gets one fixed date here. Does not know grids or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Protocol

from jinja2 import TemplateError  # a dependency of transformers, which renders with it

from arc_submit.errors import ConfigError

FIXED_DATE = date(2024, 7, 26)  # what Llama's own templates write where no clock is given


class Chat(Protocol):
    """What renders a chat.

    Attributes:
        writes_date: whether a rendered text holds the fixed date.
        thinking: whether a template that knows a switch for it (Qwen3) lets the model think before its answer.
    """

    writes_date: bool
    thinking: bool

    def render(self, messages: Sequence[dict[str, str]], generation: bool) -> str:
        """The chat as text.

        Args:
            messages: each with "role" and "content".
            generation: end with the beginning of an answer.

        Raises:
            ConfigError: where the messages are refused, such as a system message that the model does not know.
        """
        ...


class PlainChat:
    """Turns that follow each other without marks: the prompt itself writes all that the model was trained on."""

    writes_date = False
    thinking = False

    def render(self, messages: Sequence[dict[str, str]], generation: bool) -> str:
        """See `Chat.render`."""
        return "".join(message["content"] for message in messages)


class ChatTemplate:
    """A chat template with a tokenizer's special tokens.

    Args:
        tokenizer: a transformers tokenizer.
        text: of the template; None takes the tokenizer's own.

    Raises:
        ConfigError: where there is none.
    """

    def __init__(self, tokenizer: Any, text: str | None = None):
        if not (text or getattr(tokenizer, "chat_template", None)):
            raise ConfigError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; give one with --chat-template FILE (or none, for a "
                "prompt that needs none), or add chat_template.jinja to the model"
            )
        self._tokenizer = tokenizer
        self._text = text
        self.writes_date = False
        self.thinking = False

    def render(self, messages: Sequence[dict[str, str]], generation: bool) -> str:
        """See `Chat.render`."""

        def strftime_now(form: str) -> str:
            self.writes_date = True
            return FIXED_DATE.strftime(form)

        try:
            # Templates that know enable_thinking (Qwen3) write no thoughts where it is off; others ignore it. A variable hides the
            # function of the same name, which tells the real time.
            text: str = self._tokenizer.apply_chat_template(
                list(messages),
                chat_template=self._text,
                tokenize=False,
                add_generation_prompt=generation,
                enable_thinking=self.thinking,
                strftime_now=strftime_now,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            roles = ", ".join(dict.fromkeys(message["role"] for message in messages))
            raise ConfigError(
                f"the chat template of {self._tokenizer.name_or_path} refuses a chat with the roles {roles} ({error}); use a prompt that "
                "it takes, such as --prompt output-from-turns-v0"
            ) from None
        return text
