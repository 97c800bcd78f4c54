"""How a model is asked, as data: the grid encoder, the prompt, the length, the chat template and what ends an answer.

A model's arc_submit.json, beside its weights, holds the configuration. Another file, or one of the formats that come with the project,
takes its place where the model's folder is read-only, and a run's options override both. An impossible configuration is refused here, from
the files alone, before a worker loads anything. Does not know weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from arc_submit.errors import ConfigError, DataError
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompts import PROMPT_SUFFIX, PromptVersion, prompt_version

CONFIG_FILE = "arc_submit.json"
CHAT_TEMPLATE_FILE = "chat_template.jinja"
NO_CHAT_TEMPLATE = "none"  # turns follow each other without marks
SHORTEST = 16  # tokens: fewer hold no pair and no answer
FORMATS = Path(__file__).parent / "formats"
_NEEDED = ("grid_encoder", "prompt", "max_seq_len")
_KEYS = (*_NEEDED, "chat_template", "end_marks", "options")


@dataclass(frozen=True)
class PromptConfig:
    """How tasks are written for a model.

    Attributes:
        grid_encoder: specification of the grid encoder.
        prompt: name of the prompt version, or of a prompt file.
        max_seq_len: tokens of the longest prompt with its answer.
        prompt_text: content of the prompt file, where `prompt` names one.
        chat_template: text of the chat template; None takes the tokenizer's, "none" writes the turns one after another.
        end_marks: the tokens that end an answer, by their text; empty: found in the chat template and the model's files.
        options: settings of a run that fit the model, such as "lora_rank", by their names as keywords of `make_config`.
    """

    grid_encoder: str
    prompt: str
    max_seq_len: int
    prompt_text: str | None = None
    chat_template: str | None = None
    end_marks: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def version(self, special_tokens: Mapping[str, str] | None = None) -> PromptVersion:
        """The prompt version.

        Args:
            special_tokens: of the tokenizer, which a prompt file may write; None takes stand-ins.

        Raises:
            ConfigError: where there is none of that name, or the file's prompt cannot work.
        """
        if self.prompt_text is None:
            return prompt_version(self.prompt)
        from arc_submit.language.prompt_files import check_grids_apart, read_prompt  # with Jinja, which most models' prompts do not need

        version = read_prompt(self.prompt, self.prompt_text, special_tokens)
        check_grids_apart(version, make_encoder(self.grid_encoder))
        return version

    def digest(self) -> str:
        """A digest of the whole content, wherever the files lie."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write arc_submit.json into a model's or an adapter's folder, with the templates that it names."""
        value: dict[str, Any] = {name: getattr(self, name) for name in _NEEDED}
        if self.prompt_text is not None:
            (folder / self.prompt).write_text(self.prompt_text, encoding="utf-8")
        if self.chat_template == NO_CHAT_TEMPLATE:
            value["chat_template"] = NO_CHAT_TEMPLATE
        elif self.chat_template is not None:
            (folder / CHAT_TEMPLATE_FILE).write_text(self.chat_template, encoding="utf-8")
            value["chat_template"] = CHAT_TEMPLATE_FILE
        value |= {"end_marks": list(self.end_marks)} if self.end_marks else {}
        value |= {"options": dict(self.options)} if self.options else {}
        (folder / CONFIG_FILE).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_prompt_config(folder: Path, model_config: Path | None = None) -> PromptConfig | None:
    """The configuration in a model's folder, or None where there is no file.

    Args:
        model_config: a file, or the name of a format that comes with the project, in place of the model's arc_submit.json.

    Raises:
        ConfigError: where there is no such file or format.
        DataError: where the file does not hold a configuration.
    """
    if model_config is not None:
        return _read(config_path(model_config), anywhere=True)
    path = folder / CONFIG_FILE
    return _read(path, anywhere=False) if path.exists() else None


def config_path(model_config: Path) -> Path:
    """The file of a configuration: the file itself, the arc_submit.json of a folder, or the format of that name.

    Raises:
        ConfigError: where there is none.
    """
    shipped = FORMATS / f"{model_config}.json"
    for path in (model_config, model_config / CONFIG_FILE, shipped):
        if path.is_file():
            return path
    names = ", ".join(format_names())
    raise ConfigError(f"--model-config {model_config}: no such file; give a file like a model's {CONFIG_FILE}, or one of {names}")


def format_names() -> list[str]:
    """The names of the formats that come with the project."""
    return sorted(path.stem for path in FORMATS.glob("*.json"))


def _read(path: Path, anywhere: bool) -> PromptConfig:
    """The configuration in a file.

    Args:
        anywhere: it may name files that do not lie beside it.
    """
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        config = PromptConfig(str(value["grid_encoder"]), str(value["prompt"]), int(value["max_seq_len"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: grid_encoder, prompt and max_seq_len are expected ({type(error).__name__}: {error})") from None
    if config.max_seq_len < SHORTEST:
        raise DataError(f"{path}: max_seq_len {config.max_seq_len} fits no task")
    if unknown := sorted(set(value) - set(_KEYS)):
        raise DataError(f"{path}: the key {unknown[0]} is not known; known: {', '.join(_KEYS)}")
    template, marks, options = value.get("chat_template"), value.get("end_marks", ()), value.get("options", {})
    marks = (marks,) if isinstance(marks, str) else tuple(marks) if isinstance(marks, list | tuple) else None
    if marks is None or not all(isinstance(mark, str) and mark for mark in marks):
        raise DataError(f"{path}: end_marks is a list of texts such as <|im_end|>")
    if template is not None and not isinstance(template, str):
        raise DataError(f"{path}: chat_template is the name of a file beside it, a template's text, or {NO_CHAT_TEMPLATE!r}")
    if not isinstance(options, dict):
        raise DataError(f"{path}: options is an object of a run's settings, such as {{'lora_rank': 16}}")
    if template is not None and template != NO_CHAT_TEMPLATE and not _is_text(template):
        template = _read_named(path, "chat_template", template, anywhere)
    if config.prompt.endswith(PROMPT_SUFFIX):
        text = _read_named(path, "prompt", config.prompt, anywhere)
        config = replace(config, prompt=Path(config.prompt).name, prompt_text=text)
    return replace(config, chat_template=template, end_marks=marks, options=options)


def _is_text(template: str) -> bool:
    return "{" in template or "\n" in template


def _read_named(path: Path, key: str, name: str, anywhere: bool) -> str:
    """The content of a file that a configuration file names, seen from its folder."""
    if Path(name).name != name and not anywhere:
        raise DataError(f"{path}: {key} {name}: name a file that lies beside it")
    return _read_text(path.parent / name, f"{path}: {key} {name}")


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{what}: cannot be read ({type(error).__name__}: {error})") from None


def resolve_prompt_config(
    folder: Path,
    grid_encoder: str | None,
    prompt: str | None,
    max_seq_len: int | None,
    model_config: Path | None = None,
    chat_template: Path | None = None,
) -> PromptConfig:
    """The configuration for prompts of kind "output": the arguments first, then the model's arc_submit.json.

    Args:
        grid_encoder: specification of the grid encoder.
        prompt: name of a prompt version, or a prompt file.
        max_seq_len: tokens of the longest prompt with its answer.
        model_config: see `read_prompt_config`.
        chat_template: a file, or "none".

    Raises:
        ConfigError: where a value is missing in both, or cannot work with this model.
        DataError: where the model's files are malformed.
    """
    own = read_prompt_config(folder, model_config)
    grid_encoder = grid_encoder or (own.grid_encoder if own else None)
    name = prompt or (own.prompt if own else None)
    max_seq_len = max_seq_len or (own.max_seq_len if own else None)
    if grid_encoder is None or name is None or max_seq_len is None:
        raise ConfigError(
            f"model {folder} has no {CONFIG_FILE}: give --model-config FILE, or --grid-encoder, --prompt and --max-seq-len "
            f"(--model-config also takes {', '.join(format_names())})"
        )
    config = replace(own or PromptConfig(grid_encoder, name, max_seq_len), grid_encoder=grid_encoder, prompt=name, max_seq_len=max_seq_len)
    if prompt is not None:
        text = _read_text(Path(prompt), f"--prompt {prompt}") if prompt.endswith(PROMPT_SUFFIX) else None
        config = replace(config, prompt=Path(prompt).name if text is not None else prompt, prompt_text=text)
    if chat_template is not None:
        config = replace(config, chat_template=read_chat_template(chat_template))
    make_encoder(grid_encoder)
    if config.version().kind != "output":
        raise ConfigError(f"prompt {config.prompt} does not ask for the output; choose one named output-from-...")
    limit = length_limit(folder)
    if limit is not None and max_seq_len > limit:
        raise ConfigError(f"max_seq_len {max_seq_len} is over the {limit} tokens that model {folder} takes; lower it")
    return config


def read_chat_template(path: Path) -> str:
    """The text of a chat template from the command line's --chat-template, a file or "none".

    Raises:
        DataError: where it cannot be read.
    """
    return NO_CHAT_TEMPLATE if str(path) == NO_CHAT_TEMPLATE else _read_text(path, f"--chat-template {path}")


def length_limit(folder: Path) -> int | None:
    """The tokens that a model takes according to its config.json, where that says."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # A model that also takes pictures has the limit in the part for texts.
        limit = values.get("max_position_embeddings", values.get("text_config", {}).get("max_position_embeddings"))
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{folder / 'config.json'}: not a model's configuration ({type(error).__name__}: {error})") from None
    return limit if isinstance(limit, int) else None
