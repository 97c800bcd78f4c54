"""The tokens that end an answer: found in what the chat template writes behind it, in the tokenizer and in the generation configuration.

A tokenizer's eos_token is often not what the template ends an answer with: base models have <|endoftext|> and ChatML's <|im_end|>, Gemma
has <eos> and <end_of_turn>. Does not know grids or prompts.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError


def find_end_ids(
    tokenizer: Any, behind: Sequence[int], answer: Collection[int], named: Sequence[str] = (), further: Sequence[int] = ()
) -> tuple[int, ...]:
    """The tokens that end an answer; the first of them is the one that training teaches.

    It is the first special token that is written behind an answer. The tokenizer's eos_token and the end tokens of the model's generation
    configuration end an answer too, because a model may have been trained to write them there. Where no special token is behind an answer,
    it is the first of those end tokens that is written before a further question (GLM's <|user|>), or the first of the named ones.

    Args:
        behind: token ids of the text behind an answer, white space and further marks included.
        answer: token ids that occur in answers, which end none.
        named: end marks that replace all this; one of them must stand behind an answer where other special tokens do.
        further: token ids of the text between an answer and a further question.

    Raises:
        ConfigError: where none is found, or a named one is not one token.
    """
    folder, added = tokenizer.name_or_path, set(tokenizer.added_tokens_decoder)
    if named:
        allowed = [_id_of(tokenizer, mark) for mark in named]
        others = allowed
    else:
        eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
        others = [*eos, *(token for token in generation_end_ids(folder) if token in added)]
        allowed = [*others, *added]
    first = next((token for token in behind if token in allowed), None)
    if first is None and not added & {*behind}:
        first = allowed[0] if named else next((token for token in further if token in others), None)
    if first is None:
        text = tokenizer.decode(list(behind), skip_special_tokens=False) if behind else ""
        known = f"{' or '.join(named)} " if named else ""
        raise ConfigError(
            f"{folder}: the chat template does not end an answer with an end mark {known}(it writes {text!r}); set eos_token in "
            "tokenizer_config.json to the token that it writes there, name end_marks in a file for --model-config, or give --chat-template"
        )
    if first in answer:
        raise ConfigError(
            f"{folder}: {tokenizer.convert_ids_to_tokens(first)!r} ends an answer and is a part of one; mend the chat template"
        )
    return (first, *dict.fromkeys(token for token in others if token != first and token not in answer))


def generation_end_ids(folder: str) -> list[int]:
    """The end tokens in a model's generation_config.json, or else in its config.json; none for a tokenizer without a folder.

    Raises:
        DataError: where the file is malformed.
    """
    for name in ("generation_config.json", "config.json") if folder else ():
        path = Path(folder) / name
        if not path.is_file():
            continue
        try:
            found = json.loads(path.read_text(encoding="utf-8-sig")).get("eos_token_id")
            if found is not None:
                return [int(token) for token in (found if isinstance(found, list) else [found])]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: eos_token_id is a token's number, or a list of them ({type(error).__name__}: {error})") from None
    return []


def _id_of(tokenizer: Any, mark: str) -> int:
    ids = tokenizer.encode(mark, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ConfigError(f"{tokenizer.name_or_path}: the end mark {mark!r} is {len(ids)} tokens, not one token of the vocabulary")
    return int(ids[0])
