"""Finds what a notebook's cells install, download or load from the network, which is off in a competition's re-run.

An install is a certain failure and an error; what may be local or is caught by the notebook is a warning. Does not know kernels.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

from arc_submit.kaggle.cell_commands import Call, Notebook
from arc_submit.kaggle.cell_values import UNKNOWN
from arc_submit.kaggle.findings import Finding

_CONDA = ("conda", "mamba", "micromamba")
# For each program, the sub-commands that need the network; the options that keep it offline are in _is_offline.
_INSTALLS = {
    **dict.fromkeys(("pip", "pip2", "pip3"), ("install", "download", "wheel")),
    **dict.fromkeys(_CONDA, ("install", "create", "update", "upgrade", "env")),
    **dict.fromkeys(("apt", "apt-get", "aptitude", "yum", "dnf", "brew", "snap"), ("install", "update", "upgrade")),
    "apk": ("add", "update"),
    "uv": ("pip", "add", "sync", "tool", "run", "lock", "python", "self"),
    "pipx": ("install", "run"),
    "pixi": ("add", "install", "run"),
    **dict.fromkeys(("poetry", "pdm", "pipenv", "rye"), ("add", "install", "update", "sync")),
    **dict.fromkeys(("npm", "yarn", "pnpm", "bun"), ("install", "add", "ci", "i")),
    **dict.fromkeys(("cargo", "gem", "cpan", "playwright", "opam"), ("install",)),
    "go": ("install", "get"),
    **dict.fromkeys(("ensurepip", "easy_install", "uvx", "npx", "add-apt-repository", "pip-sync", "pip-compile"), ()),
}
_DOWNLOADS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("wget", "wget2", "curl", "aria2c", "axel", "gdown", "gsutil", "scp", "sftp", "ssh", "rsync"), ()),
    **dict.fromkeys(("rclone", "azcopy", "yt-dlp", "youtube-dl", "megadl", "http", "https", "lynx", "kaggle", "ngrok", "ping"), ()),
    "git": ("clone", "fetch", "pull", "lfs", "submodule", "ls-remote", "push"),
    **dict.fromkeys(("hf", "huggingface-cli", "huggingface_hub.commands.huggingface_cli"), ("download", "login", "auth", "repo", "upload")),
    "modelscope": ("download",),
    "aws": ("s3",),
    "gcloud": ("storage",),
    "gh": ("repo", "release"),
    "svn": ("checkout", "co", "export"),
    "dvc": ("pull", "fetch"),
    "spacy": ("download",),
    "nltk.downloader": (),
    "ollama": ("pull", "run"),
    **dict.fromkeys(("docker", "podman", "apptainer", "singularity"), ("pull", "run")),
    "wandb": ("login", "sync"),
}
# Options of these programs that take a value and may precede the sub-command.
_VALUED = {"git": ("-C", "-c", "--git-dir", "--work-tree"), "pip": ("--python", "--log", "--cache-dir", "--timeout", "--proxy")}
_NO_WORK = ("--version", "--help", "-h", "-V", "help", "version")
_LOCAL = re.compile(r"\b(localhost|127\.0\.0\.1|0\.0\.0\.0)\b|^file:")
_REMOTE = re.compile(r"(?:https?|ftp|s3|gs|hf|az|abfss?)://")
# Calls that need the network whatever they are given.
_DOWNLOADING_CALLS = re.compile(
    r"(?:.*\.)?(?:snapshot_download|hf_hub_download|hf_hub_url|load_dataset|load_dataset_builder|urlretrieve|urlopen|clone_from"
    r"|load_state_dict_from_url|download_url|download_url_to_file|notebook_login|push_to_hub|upload_folder|UserSecretsClient|KaggleApi"
    r"|ClientSession|PoolManager|HTTPS?Connection|create_connection|SSHClient|build_opener)"
    r"|(?:kagglehub|wandb|modelscope|gdown|huggingface_hub|boto3|s3fs|gcsfs|ftplib|smtplib|litellm|neptune|comet_ml)\.\w+"
    r"|(?:requests|httpx|aiohttp)\.(?:api\.)?(?:get|post|put|head|patch|delete|request|stream|Session|session|Client|AsyncClient)"
    r"|(?:wget|nltk|spacy\.cli|gdown)\.download|torch\.hub\.(?:load|list|help)|(?:api|kaggle\.api)\.\w*download\w*|(?:\w+\.)?HfApi"
    r"|(?:openai|anthropic|cohere|mistralai|together|groq)\.(?:Async)?[A-Z]\w*|google\.(?:cloud|generativeai|genai)\.[\w.]+"
    r"|evaluate\.load"
)
# Calls that read or fetch where they are given an address.
_READERS = re.compile(
    r"read_\w+|load\w*|open|genfromtxt|get_file|fetch\w*|download\w*|imread|get|post|stream|request|Request|set_tracking_uri"
)
# Calls that take a folder or the name of a model that is downloaded.
_LOADERS = re.compile(
    r"from_pretrained|from_pretrained_hf|pipeline|LLM|LLMEngine|EngineArgs|AsyncEngineArgs|AsyncLLM|SentenceTransformer|CrossEncoder"
    r"|load_model|load_adapter|load_tokenizer|get_model|InferenceClient|create_model|Engine|\w*Trainer|transformers|vllm"
)
_WEIGHTS = re.compile(r"DEFAULT|IMAGENET\w*")
# Models of a hub whose names have no owner.
_OLD_NAME = re.compile(
    r"(?:distil|open)?(?:gpt2|gpt2-\w+)|(?:distil|xlm-|al|ro|de)?bert\w*-[\w.-]+|(?:flan-)?t5-[\w.-]+|xlnet-[\w.-]+|bart-[\w.-]+"
)
_HUB_NAME = re.compile(r"(?!\.)[\w.-]+/[\w.-]+(?:@[\w.-]+)?")
_FILE = re.compile(r".*\.(?:keras|h5|hdf5|pt|pth|bin|json|pkl|csv|txt|py|gguf|yaml|yml)")
_NO_INDEX = re.compile(r"PIP_NO_INDEX['\"\]\s=,:]+['\"]?(?:1|true|yes|on)\b", re.IGNORECASE)
_WANDB_OFF = re.compile(r"WANDB_(?:MODE|DISABLED)['\"\]\s=,:]+['\"]?(?:offline|disabled|dryrun|true|1)\b", re.IGNORECASE)
_MODEL_OPTIONS = ("--model", "--model-path", "--model_name_or_path", "--model-id", "--tokenizer", "--served-model")


def check_network(file: str, cells: Sequence[tuple[int, str]]) -> Iterator[Finding]:
    """The findings about the code cells, (number, source), of a notebook without internet access."""
    notebook = Notebook([source for _, source in cells])
    no_index = quiet = False  # set by an earlier cell, or by this one
    for number, source in cells:
        place = f"cell {number}"
        error, warning = partial(Finding, "error", file, place), partial(Finding, "warning", file, place)
        calls, commands = notebook.read(source)
        no_index, quiet = no_index or bool(_NO_INDEX.search(source)), quiet or bool(_WANDB_OFF.search(source))
        installs = [words for words in commands if _needs(_INSTALLS, words) and not _is_offline(words, no_index)]
        downloads = [" ".join(words) for words in commands if _needs(_DOWNLOADS, words) and not _is_local(words)]
        downloads += [call.name for call in calls if _downloads(call) and not (quiet and call.name.startswith("wandb."))]
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
    if program not in table or (words[1:] and all(word in _NO_WORK for word in words[1:])):
        return False
    needed, rest = table[program], list(words[1:])
    while rest and rest[0].startswith("-"):
        rest = rest[2 if rest[0] in _VALUED.get(program, ()) else 1 :]
    command = rest[0] if rest else ""
    if program == "uv" and command == "pip":
        return "install" in words or "sync" in words or "compile" in words
    if program == "uv" and command in ("run", "tool", "python", "self"):
        return any(word.startswith("--with") for word in rest) if command == "run" else rest[1:2] in (["install"], ["run"], ["update"])
    if program in ("git", "hf", "huggingface-cli") and command in ("lfs", "repo", "auth"):
        return rest[1:2] not in (["version"], ["install"], ["env"], ["track"], ["whoami"])
    if program in ("yarn", "pnpm") and not command:
        return True
    return not needed or command in needed or (command not in (*_NO_WORK, "run") and program in _CONDA and rest[1:2] in [["install"]])


def _is_offline(words: Sequence[str], no_index: bool) -> bool:
    """Whether an install asks no index: by an option, or because it has nothing but local files without their dependencies.

    Args:
        no_index: PIP_NO_INDEX is set.
    """
    if any(word in ("--no-index", "--offline", "PIP_NO_INDEX=1", "UV_OFFLINE=1", "--help", "-h") for word in words):
        return True
    if no_index and re.match(r"pip", words[0]):
        return True
    targets = [word for word in words[2:] if not word.startswith("-") and word != "install"]
    local = bool(targets) and all(("/" in word or word.endswith(".whl")) and "://" not in word for word in targets)
    packages = words[0].startswith("apt") and all(word.endswith(".deb") for word in targets)
    return local and ("--no-deps" in words or packages)


def _is_local(words: Sequence[str]) -> bool:
    """Whether a download asks this machine alone."""
    if any(map(_LOCAL.search, words[1:])):
        return True
    given = [word for word in words[1:] if not word.startswith("-")]
    return words[0] == "git" and given[:1] == ["clone"] and bool(re.match(r"[./~]", "".join(given[1:2])))


def _downloads(call: Call) -> bool:
    """Whether a call needs the network."""
    given = [*call.arguments, *call.keywords.values()]
    if call.keywords.get("mode") in ("offline", "disabled") or call.keywords.get("source") == "local" or any(map(_LOCAL.search, given)):
        return False
    if call.keywords.get("pretrained") == "True" or _WEIGHTS.fullmatch(call.keywords.get("weights", "")):
        return True
    return bool(_DOWNLOADING_CALLS.fullmatch(call.name) or (_READERS.fullmatch(call.function) and any(map(_REMOTE.match, given))))


def _hub_names(calls: Sequence[Call]) -> list[str]:
    """The names of models on a hub that loaders are given."""
    texts = [
        text
        for call in calls
        if _LOADERS.fullmatch(call.function)
        for text in (*call.arguments, *(text for name, text in call.keywords.items() if name not in ("cache_dir", "token", "revision")))
        if not (_FILE.fullmatch(text) and call.function == "load_model")
    ]
    named = [text for text in texts if UNKNOWN not in text.partition("/")[0] and _HUB_NAME.fullmatch(text.replace(UNKNOWN, "x"))]
    first = [call.arguments[0] for call in calls if call.function == "from_pretrained" and call.arguments]
    return [*named, *filter(_OLD_NAME.fullmatch, first)]


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
