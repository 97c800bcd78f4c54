"""Finds what a notebook's cells install, download or load from the network, which is off in a competition's re-run.

An install is a certain failure and an error; what may be local or is caught by the notebook is a warning. Does not know kernels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from arc_submit.kaggle.cell_commands import UNKNOWN, Call, Notebook
from arc_submit.kaggle.findings import Finding

_CONDA = ("conda", "mamba", "micromamba")
# For each program, the sub-commands that need the network; the options that keep it offline are in _is_offline.
_INSTALLS = {
    **dict.fromkeys(("pip", "pip2", "pip3"), ("install", "download", "wheel")),
    **dict.fromkeys(_CONDA, ("install", "create", "update", "upgrade", "env")),
    **dict.fromkeys(("apt", "apt-get", "aptitude"), ("install", "update", "upgrade")),
    "uv": ("pip", "add", "sync", "tool", "run"),
    "pipx": ("install", "run"),
    "pixi": ("add", "install", "run"),
    **dict.fromkeys(("poetry", "pdm"), ("add", "install", "update", "sync")),
    **dict.fromkeys(("npm", "yarn"), ("install", "add", "ci")),
    "cargo": ("install",),
    "ensurepip": (),
}
_DOWNLOADS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("wget", "curl", "aria2c", "axel", "gdown", "gsutil", "scp", "rclone", "azcopy", "yt-dlp"), ()),
    "git": ("clone", "fetch", "pull", "lfs", "submodule"),
    **dict.fromkeys(("hf", "huggingface-cli"), ("download", "login", "auth", "repo", "upload")),
    "kaggle": (),
    "modelscope": ("download",),
    "aws": ("s3",),
    "gcloud": ("storage",),
    "ollama": ("pull", "run"),
    "docker": ("pull", "run"),
    "wandb": ("login", "sync"),
}
_LOCAL = re.compile(r"\b(localhost|127\.0\.0\.1)\b|^file:")
# Calls that need the network whatever they are given.
_DOWNLOADING_CALLS = re.compile(
    r"(?:.*\.)?(?:snapshot_download|hf_hub_download|hf_hub_url|load_dataset|load_dataset_builder|urlretrieve|urlopen|clone_from"
    r"|load_state_dict_from_url|download_url|download_url_to_file|notebook_login)"
    r"|(?:kagglehub|wandb|modelscope|gdown|huggingface_hub)\.\w+|(?:requests|httpx)\.(?:get|post|put|request|Session|Client)"
    r"|(?:wget|nltk|spacy\.cli|gdown)\.download|torch\.hub\.load|(?:api|kaggle\.api)\.\w*download\w*|(?:\w+\.)?HfApi"
)
# Calls that take a folder or the name of a model that is downloaded.
_LOADERS = re.compile(
    r"from_pretrained|from_pretrained_hf|pipeline|LLM|LLMEngine|EngineArgs|AsyncEngineArgs|AsyncLLM|SentenceTransformer|CrossEncoder"
    r"|load_model|load_adapter|load_tokenizer|get_model|InferenceClient|create_model|\w*Trainer|transformers|vllm"
)
_HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+(?:@[\w.-]+)?")
_MODEL_OPTIONS = ("--model", "--model-path", "--model_name_or_path", "--model-id", "--tokenizer", "--served-model")


def check_network(file: str, cells: Sequence[tuple[int, str]]) -> Iterator[Finding]:
    """The findings about the code cells, (number, source), of a notebook without internet access."""
    notebook = Notebook()
    for number, source in cells:
        place = f"cell {number}"
        error, warning = partial(Finding, "error", file, place), partial(Finding, "warning", file, place)
        calls, commands = notebook.read(source)
        installs = [words for words in commands if _needs(_INSTALLS, words) and not _is_offline(words)]
        downloads = [" ".join(words) for words in commands if _needs(_DOWNLOADS, words) and not any(map(_LOCAL.search, words[1:]))]
        downloads += [call.name for call in calls if _DOWNLOADING_CALLS.fullmatch(call.name) and call.keywords.get("mode") != "offline"]
        if installs:
            problem = f"installs from the network, which is off ({_short(' '.join(installs[0]))})"
            yield error(problem, "install from attached wheels, with --no-index")
        elif downloads:
            yield warning(f"downloads with {_short(downloads[0])!r}, and the network is off", "attach it as a data set")
        if names := [*_hub_names(calls), *_served_models(commands)]:
            problem = f"loads {names[0]!r}, which is downloaded unless it is a folder, and the network is off"
            yield warning(problem, "attach the model and give its folder")
        if re.search(r"^[^#\n]*arc_submit\.kaggle\.wheels\b", source, re.MULTILINE):
            yield error("downloads wheels, and the network is off", "set enable_internet, and name no competition")


def _needs(table: dict[str, tuple[str, ...]], words: Sequence[str]) -> bool:
    """Whether a table has the program and, where it names some, one of its sub-commands."""
    program = re.sub(r"(?<=pip)\d(\.\d+)?$", "", words[0])
    if program not in table:
        return False
    needed = table[program]
    command = next((word for word in words[1:] if not word.startswith("-")), "")
    if program == "uv" and command == "pip":
        return "install" in words or "sync" in words or "compile" in words
    if program == "uv" and command == "run":
        return any(word.startswith("--with") for word in words)
    return not needed or command in needed or any(word in needed for word in words[1:4])


def _is_offline(words: Sequence[str]) -> bool:
    """Whether an install asks no index: by an option, or because it has nothing but local files without their dependencies."""
    if any(word in ("--no-index", "--offline", "PIP_NO_INDEX=1", "UV_OFFLINE=1", "--help", "-h") for word in words):
        return True
    targets = [word for word in words[2:] if not word.startswith("-")]
    return "--no-deps" in words and bool(targets) and all("/" in word or word.endswith(".whl") for word in targets if word != "install")


def _hub_names(calls: Sequence[Call]) -> list[str]:
    """The names of models on a hub that loaders are given."""
    texts = [
        text
        for call in calls
        if _LOADERS.fullmatch(call.function)
        for text in (*call.arguments, *(text for name, text in call.keywords.items() if name not in ("cache_dir", "token", "revision")))
    ]
    return [text for text in texts if UNKNOWN not in text.partition("/")[0] and _HUB_NAME.fullmatch(text.replace(UNKNOWN, "x"))]


def _served_models(commands: Sequence[Sequence[str]]) -> list[str]:
    """The names of models on a hub that commands are given, as in `vllm serve NAME` and `--model NAME`."""
    found = []
    for words in commands:
        found += [words[2]] if words[:2] == ["vllm", "serve"] and len(words) > 2 else []
        for option, value in zip(words, [*words[1:], ""], strict=True):
            name, _, inside = option.partition("=")
            found += [inside or value] if name in _MODEL_OPTIONS else []
    return [name for name in found if _HUB_NAME.fullmatch(name)]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
