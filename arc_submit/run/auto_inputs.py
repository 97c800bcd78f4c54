"""What the preset auto reads before it decides: the cards, the model's files, the tasks, and what an earlier start of the run decided.

A run that goes on decides nothing anew: what was decided is in its config.json. Does not know the rules (run/auto.py).
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from arc_submit.base_model.checks import adapter_lora
from arc_submit.base_model.memory import read_shape
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.errors import ArcSubmitError, ConfigError, DataError
from arc_submit.language.prompt_config import length_limit, read_prompt_config
from arc_submit.run.auto import DEFAULT_LENGTH, Machine, Model, Work, choose_devices, choose_settings
from arc_submit.run.choices import Choice
from arc_submit.run.config import RunConfig
from arc_submit.run.data import load_data
from arc_submit.run.host import count_parameters
from arc_submit.run.kaggle_paths import is_competition_rerun
from arc_submit.run.measured import read_measured
from arc_submit.run.source import task_cost
from arc_submit.storage.run_dir import RunPaths
from arc_submit.workers.devices import Gpu, find_gpus, has_gpu_driver

AUTO = "auto"
RECORD = "auto"  # key of config.json
_DATA = ("challenges", "solutions", "input", "split", "tasks", "task_ids", "seed")
_find_gpus = functools.cache(find_gpus)  # seconds each time, and a sweep reads many configurations


def decide(given: Mapping[str, Any], asked: bool, record: str = RECORD) -> tuple[Choice, ...]:
    """What auto decides for a run, or for a source of it, or decided when the run directory began.

    Args:
        given: settings of the user and of the model's configuration, by name.
        asked: --preset auto is given; otherwise auto is taken only where a GPU and a model other than the pocket model are there.
        record: key of config.json under which what was decided is kept.

    Returns:
        No setting where auto is not taken; a fact where that is for a GPU that has a driver and is not seen.

    Raises:
        ArcSubmitError: where auto is asked for and nothing can be decided. In a competition's re-run there is a choice all the same, and
            resolving then decides what works.
    """
    begun = RunPaths(given.get("out") or RunConfig.out).read_config()
    recorded = (begun or {}).get(record)
    if not asked and (not _suits(given) or (begun is not None and recorded is None)):
        return ()
    try:
        if given.get("executor", "local") != "local":
            raise ConfigError("--preset auto decides by the GPUs of this machine; on a cluster name a preset")
        gpus, evidence = _find_gpus()
        if not gpus:
            if not asked and recorded is None:
                return (Choice({"devices": ("cpu",)}, f"there is the driver of a GPU, but {evidence}", setting=False),)
            raise ConfigError(f"--preset auto: no GPU is there ({evidence}); switch the accelerator on, or give --preset cpu-pocket")
        model = read_model(given)
        machine = machine_of(gpus, importlib.util.find_spec("vllm") is not None, model, given)
        if isinstance(recorded, dict):
            choices = (choose_devices(machine, model, given), Choice(recorded, "as this run began, see its config.json"))
            return tuple(kept for choice in choices if (kept := choice.without(given)) is not None)
        # Fine-tuning that starts from an adapter has that one's rank and targets.
        adapter = {} if given.get("base_adapter") is None else {"lora": adapter_lora(given["base_adapter"])}
        return choose_settings(machine, model, read_work(given), {**given, **adapter})
    except ArcSubmitError as error:
        if not is_competition_rerun():
            raise
        return (Choice({"devices": ("cuda:0",)}, f"nothing else is decided: {error}"),)


def machine_of(gpus: Sequence[Gpu], vllm: bool, model: Model, given: Mapping[str, Any]) -> Machine:
    """The machine, with what was measured on it.

    Raises:
        DataError: where the file of measurements holds none.
    """
    named = {f"cuda:{number}": gpu for number, gpu in enumerate(gpus)}
    if given.get("measured") is None:
        return Machine(named, vllm)
    measured = read_measured(given["measured"])
    return Machine(named, vllm, measured.memory_factor, measured.costs(model.parameters))


def recorded_values(choices: tuple[Choice, ...]) -> dict[str, Any]:
    """What config.json keeps of choices: all settings but the devices, because a run may go on with fewer."""
    return {name: value for choice in choices if choice.setting for name, value in choice.values.items() if name != "devices"}


def _suits(given: Mapping[str, Any]) -> bool:
    """Whether auto would be better than cpu-pocket, if there is a GPU."""
    devices, model = given.get("devices"), given.get("model")
    if model is None or devices == ("cpu",) or given.get("executor", "local") != "local" or not has_gpu_driver():
        return False
    try:
        return read_shape(model) != read_shape(pocket_folder())
    except DataError:
        return False  # resolving the run says what is wrong with it


def read_model(given: Mapping[str, Any]) -> Model:
    """What auto needs to know of the model.

    Raises:
        ArcSubmitError: where no model is given, or its files are malformed.
    """
    folder = given.get("model")
    if folder is None:
        raise ConfigError("--preset auto: give --model the folder of the base model, its arc_submit.json included")
    asked = read_prompt_config(folder, given.get("model_config"))
    shape = None if given.get("ttft_in_4_bits") else read_shape(folder)  # the memory plan is for weights in 16 bits
    return Model(shape, count_parameters(folder), length_limit(folder), asked.max_seq_len if asked else None)


def read_work(given: Mapping[str, Any]) -> Work:
    """The time and the tasks.

    Raises:
        ArcSubmitError: where no valid task is to be worked on.
    """
    known = {one.name for one in fields(RunConfig)}
    config = RunConfig(**{name: given[name] for name in (*_DATA, "budget", "report_reserve") if name in given and name in known})
    tasks = load_data(config).tasks.values()
    cells = statistics.fmean(min(DEFAULT_LENGTH, task_cost(task)) for task in tasks)
    return Work(config.budget - config.reserve, len(tasks), cells / 1000)
