"""One model over several cards for the source code: how many, which ones, what is refused, and that nothing is left after a kill."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
import vllm_ranks
from conftest import make_challenges
from processes import is_alive
from program_writer import make_model

from arc_submit.base_model.checks import loaded_bytes
from arc_submit.cli import main
from arc_submit.errors import ConfigError
from arc_submit.inference import vllm_compat, vllm_engine
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.settings import VLLM_PLAIN
from arc_submit.report.timeline import read_timeline
from arc_submit.run import code_cards, host
from arc_submit.run.auto import Machine, Model, Work, choose_settings
from arc_submit.run.choices import values_of
from arc_submit.run.code_cards import CardGroups, cards_by_size, choose_card_groups
from arc_submit.run.config import RunConfig
from arc_submit.run.orchestrator import load_progress
from arc_submit.run.presets import make_config
from arc_submit.run.resolve import resolve_run
from arc_submit.run.simulate import Rig, rig_setup
from arc_submit.run.source import Scale, SourceSetup
from arc_submit.run.source_code import resolve_code
from arc_submit.scheduling.costs import initial_costs
from arc_submit.scheduling.simulation import simulate_run
from arc_submit.storage.run_dir import RunPaths
from arc_submit.workers.devices import Gpu, worker_environment
from arc_submit.workers.pool import Backend, ProcessConfig, run_jobs
from arc_submit.workers.supervisor import Event, Job, Timeouts, WorkerQuota

RTX = Gpu("NVIDIA RTX 5090", 31.8, (12, 0))
T4, L4 = Gpu("Tesla T4", 14.56, (7, 5)), Gpu("NVIDIA L4", 22.3, (8, 9))


def sizes(kind: str, layers: int, width: int, mlp: int, heads: tuple[int, int], **more: Any) -> dict[str, Any]:
    """A config.json; heads are those of attention and of keys and values."""
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": mlp,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": 152064,
        **more,
    }


# Bytes as in the files that their makers publish.
MODELS = {
    "7B": (sizes("qwen2", 28, 3584, 18944, (28, 4)), 15.23e9),
    "14B": (sizes("qwen2", 48, 5120, 13824, (40, 8)), 29.54e9),
    "32B": (sizes("qwen2", 64, 5120, 27648, (40, 8)), 65.53e9),
    "32B-AWQ": (sizes("qwen2", 64, 5120, 27648, (40, 8), quantization_config={"quant_method": "awq", "group_size": 128}), 19.33e9),
    "gpt-oss": (sizes("gpt_oss", 24, 2880, 2880, (64, 8), head_dim=64, quantization_config={"quant_method": "mxfp4"}), 13.76e9),
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the configuration of a run with the model of a name and some cards, and the cards."""
    monkeypatch.setattr(code_cards, "find_spec", lambda name: object())

    def make(name: str, cards: Sequence[Gpu], **options: Any) -> tuple[RunConfig, dict[str, Gpu]]:
        values, size = MODELS[name]
        (tmp_path / "config.json").write_text(json.dumps(values))
        monkeypatch.setattr(code_cards, "loaded_bytes", lambda folder: int(size))
        gpus = {f"cuda:{number}": gpu for number, gpu in enumerate(cards)}
        given = {"engine": "vllm", "max_concurrent": 16, **options}
        return make_config(model=tmp_path, sources=("code",), devices=tuple(gpus) or ("cpu",), **given), gpus

    return make


@pytest.mark.parametrize(
    ("name", "cards", "groups"),
    [
        ("7B", [L4] * 4, []),
        ("7B", [T4, T4], ["0,1"]),
        ("14B", [L4] * 4, ["0,1", "2,3"]),
        ("14B", [L4] * 3, ["0,1"]),
        ("14B", [T4, T4, L4, L4], ["2,3"]),
        ("14B", [RTX, RTX], ["0,1"]),
        ("32B", [L4] * 4, ["0,1,2,3"]),
        ("32B-AWQ", [T4, T4], ["0,1"]),
        ("gpt-oss", [L4, L4], []),
        ("gpt-oss", [T4, T4], ["0,1"]),
    ],
)
def test_the_smallest_number_of_cards_that_holds_the_model_is_taken(model: Any, name: str, cards: list[Gpu], groups: list[str]) -> None:
    config, gpus = model(name, cards)
    found = choose_card_groups(config, gpus, 8192)
    assert [",".join(device.removeprefix("cuda:") for device in group) for group in found.groups] == groups
    assert found.cards == (len(groups[0].split(",")) if groups else 1)
    assert bool(found.reason) == bool(groups)
    if groups:
        assert "and a question of 8192 tokens fit no single card; divided over" in found.reason
        unused = set(gpus) - {device for group in found.groups for device in group}
        assert all(device in found.reason for device in unused)


@pytest.mark.parametrize(
    ("name", "cards", "options", "message"),
    [
        (
            "32B",
            [T4, T4],
            {},
            r"61.0 GiB of weights take 3\d.\d GiB of each of 2 cards, the most of the 2 that .* 12.1 GiB of a card; lower",
        ),
        ("32B", [L4], {}, r"at least 6\d.\d GiB, and cuda:0 \(NVIDIA L4\) has 21.0 GiB for them; take"),
        ("32B-AWQ", [T4], {}, r"18.0 GiB of weights take .* of one card, and vllm has 12.1 GiB"),
        ("7B", [L4] * 4, {"code_cards": 3}, r"--code-cards 3: the 28 attention heads, .* cannot be divided so; 1 or 2 or 4 can be given"),
        ("7B", [T4] * 8, {"code_cards": 8}, r"1 or 2 or 4 can be given"),
        ("7B", [T4] * 2, {"code_cards": 4}, r"--code-cards 4: --devices gives 2"),
        ("32B", [L4] * 4, {"code_cards": 2}, r"--code-cards 2: the model takes 3\d.\d GiB of each card, and 19.1 GiB are there"),
        ("32B", [L4] * 4, {"code_cards": 1}, r"61.0 GiB of weights, with prompts at least"),
        ("32B", [L4] * 4, {"code_learn_rounds": 1}, r"and --code-learn-rounds trains on one; leave it out, and 4 cards hold the model"),
        ("7B", [L4] * 2, {"code_learn_rounds": 1, "lora_rank": 2048}, r"leave out --code-learn-rounds"),
        (
            "7B",
            [L4] * 2,
            {"code_learn_rounds": 1, "lora_rank": 8, "engine": "vllm"},
            r"has 9.9 GiB for them beside vllm; give --engine transformers, which shares its weights with the training$",
        ),
        ("14B", [L4] * 2, {"code_learn_rounds": 1, "engine": "vllm"}, r"leave it out, and 2 cards hold the model together"),
    ],
)
def test_what_cannot_work_is_refused_with_what_would(
    model: Any, name: str, cards: list[Gpu], options: dict[str, Any], message: str
) -> None:
    config, gpus = model(name, cards, **options)
    with pytest.raises(ConfigError, match=message):
        choose_card_groups(config, gpus, 8192)


def test_groups_of_values_that_share_a_scale_are_not_divided(model: Any) -> None:
    config, _ = model("32B-AWQ", [L4])
    awq = code_cards.read_divided(config)
    assert awq is not None
    assert [number for number in range(1, 9) if awq.accepts(number)] == [1, 2, 4, 8]
    assert [number for number in range(1, 9) if replace(awq, group_size=1024).accepts(number)] == [1]
    assert [number for number in range(1, 9) if replace(awq, group_size=0, kv_heads=2).accepts(number)] == [1, 2, 4, 8]


def test_without_vllm_several_cards_are_refused_and_with_transformers_vllm_takes_over(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config, gpus = model("14B", [L4, L4], engine="transformers")
    assert choose_card_groups(config, gpus, 8192).reason.endswith("in place of --engine transformers, which holds a model on one card")
    short = model("14B", [RTX, RTX], engine="transformers")
    assert choose_card_groups(*short, 8192) == CardGroups()  # which answers shorter questions on one card
    config, gpus = model("14B", [L4, L4])
    monkeypatch.setattr(code_cards, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="vllm alone divides a model over several cards, and it is not installed"):
        choose_card_groups(config, gpus, 8192)


def test_on_a_cpu_and_on_a_cluster_only_a_given_number_divides(model: Any) -> None:
    config, gpus = model("7B", [], workers=2)
    assert choose_card_groups(config, gpus, 8192) == CardGroups()
    found = choose_card_groups(replace(config, code=replace(config.code, cards=2)), {}, 8192)
    assert (found.groups, found.cards) == ((("cpu",),), 2)
    assert "2 processes" in found.reason
    with pytest.raises(ConfigError, match="--code-cards 4: --workers gives 2"):
        choose_card_groups(replace(config, code=replace(config.code, cards=4)), {}, 8192)
    cluster = replace(config, code=replace(config.code, cards=2), devices=("cuda:0", "cuda:1"))
    assert choose_card_groups(cluster, {}, 8192).groups == (("cuda:0", "cuda:1"),)
    with pytest.raises(ConfigError, match="--code-learn-rounds trains on one card"):
        replace(config, code=replace(config.code, cards=2, learn_rounds=1))


def test_weights_count_as_they_are_loaded(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16), "c": torch.zeros(11, dtype=torch.uint8)}
    save_file({**tensors, "d": torch.zeros(2, dtype=torch.int32)}, tmp_path / "model.safetensors")
    save_file(tensors, tmp_path / "consolidated.safetensors")  # the same weights under other names, as some folders have them
    assert loaded_bytes(tmp_path) == 2 * 15 + 2 * 7 + 11 + 4 * 2


def test_workers_hold_their_groups_and_a_first_estimate_knows_it(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    config, gpus = model("14B", [L4] * 4, max_seq_len=8192, out=Path("nowhere"))
    scale = Scale(initial_costs("L4", 14e9))
    setup = SourceSetup("code", "code", config, RunPaths(Path("nowhere")), scale=scale, cards=choose_card_groups(config, gpus, 8192))
    (source,) = resolve_code(setup)
    (alone,) = resolve_code(replace(setup, cards=CardGroups()))
    assert [source.environment(number)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["0,1", "2,3", "0,1"]
    assert "PYTORCH_CUDA_ALLOC_CONF" not in source.environment(0)
    assert alone.environment(1)["CUDA_VISIBLE_DEVICES"] == "1"
    assert "PYTORCH_CUDA_ALLOC_CONF" in alone.environment(1)
    assert (source.most_workers, alone.most_workers) == (2, None)
    assert [backend.name for backend in source.backends] == ["vllm", VLLM_PLAIN]
    assert [backend.settings_for(0)["predict"]["cards"] for backend in source.backends] == [2, 2]
    assert [backend.name for backend in alone.backends] == ["vllm", VLLM_PLAIN, "transformers"]
    assert source.scale.costs.predict.rate == pytest.approx(alone.scale.costs.predict.rate / 1.4)


def test_a_run_gives_the_source_its_cards_and_other_sources_one_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cards, "find_spec", lambda name: object())
    monkeypatch.setattr(host, "find_gpus", lambda: ([L4] * 5, "torch sees 5 GPUs"))
    challenges = tmp_path / "challenges.json"
    challenges.write_text(json.dumps(make_challenges(1)[0]))
    devices = [f"cuda:{number}" for number in range(5)]
    make_model(tmp_path / "model")
    files = {"challenges": challenges, "model": tmp_path / "model", "out": tmp_path / "out"}
    config = make_config(sources=("frozen", "code"), devices=tuple(devices), code_cards=2, engine="vllm", code_tokens=100, **files)
    resolved = resolve_run(config)
    frozen, code = resolved.sources
    assert code.cards.groups == (("cuda:0", "cuda:1"), ("cuda:2", "cuda:3"))
    assert code.cards.reason.endswith("cuda:4 is left to the other sources")
    assert (frozen.cards.cards, frozen.most_workers, code.most_workers) == (1, None, 2)
    assert resolved.fingerprint == resolve_run(replace(config, code=replace(config.code, cards=None))).fingerprint
    progress = load_progress(code, resolved, [])
    assert progress.lane_member.seconds == pytest.approx(2 * progress.estimated_seconds)


def test_a_plan_says_which_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(code_cards, "find_spec", lambda name: object())
    make_model(tmp_path / "model")
    given = ["--model", str(tmp_path / "model"), "--source", "code=code:code_cards=2", "--card", "4xl4", "--sample", "1"]
    assert main(["plan", "--preset", "l4x4-qwen2.5-1.5b", *given]) == 0
    assert "code: --code-cards 2 is given; divided over 2 cards (tensor parallel), 2 workers on cuda:0" in capsys.readouterr().out


def test_numbers_of_gpus_count_within_those_that_the_run_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    assert worker_environment(1, "cuda:1", "cuda:2")["CUDA_VISIBLE_DEVICES"] == "5,6"


def test_the_engine_divides_the_model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(vllm_engine, "make_core", lambda **arguments: made.append(arguments))
    monkeypatch.setattr(vllm_compat.os, "environ", dict(os.environ))
    for cards in (1, 2):
        serving = vllm_engine.Serving(cards=cards)
        engine, _, reason = vllm_engine.load_vllm_engine(tiny_model, torch.device("cpu"), 1024, 4, serving)
        assert engine.cards == cards
        assert ("divided over 2 processes" in reason) == (cards == 2)
    assert [(one["tensor_parallel_size"], one["distributed_executor_backend"]) for one in made] == [(1, "uni"), (2, "mp")]
    assert [vllm_compat.os.environ[name] for name in ("VLLM_HOST_IP", "NCCL_SOCKET_IFNAME")] == ["127.0.0.1", "lo"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    starts = [vllm_compat.choose_start(torch.device("cuda"), plain, 2)[0] for plain in (True, False)]
    assert all(start["disable_custom_all_reduce"] for start in starts)


def test_a_step_of_several_cards_that_fails_is_not_repeated_beside_processes_that_wait() -> None:
    def step() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    engine = vllm_engine.VllmEngine(SimpleNamespace(step=step), torch.nn.Module(), 9, 100, 8, 0)
    assert engine._step() is None
    engine.cards = 2
    with pytest.raises(torch.OutOfMemoryError):
        engine._step()


def test_auto_gives_a_model_that_no_card_holds_long_prompts_and_vllm() -> None:
    from arc_submit.base_model.memory import ModelShape

    shape = ModelShape("qwen2", 64, 5120, 27648, 40, 8, 128, 152064, False)
    machine, model = Machine({f"cuda:{number}": L4 for number in range(4)}, vllm=True), Model(shape, 32e9, 32768)
    values = values_of(choose_settings(machine, model, Work(600.0, 100), {"sources": ("search", "code")}))
    assert (values["engine"], values["max_seq_len"], len(values["devices"])) == ("vllm", 5120, 4)


def test_simulations_know_how_many_devices_a_worker_has(tmp_path: Path) -> None:
    assert [cards_by_size(parameters, 22.3, 4) for parameters in (7e9, 14e9, 32e9, 70e9)] == [1, 2, 4, 1]
    config = make_config(model=tmp_path, out=tmp_path, sources=("frozen", "code"), devices=("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
    outcomes = []
    for cards in (1, 2):
        rig = Rig(4, "L4", 1e9, faults=0.0, start_seconds=1.0)
        setup = rig_setup(replace(config, code=replace(config.code, cards=cards), budget=4000.0), rig, 10)
        outcomes.append(simulate_run(setup, 0, record=True))
        workers = {event["worker"] for event in outcomes[-1].events if event["event"] == "worker_begun" and event["source"] == "code"}
        assert workers == set(range(4 // cards))
        assert outcomes[-1].device_seconds["waiting"] >= 0
    assert outcomes[1].device_seconds["work"] > outcomes[0].device_seconds["work"]  # cards that wait for each other


def test_the_timeline_shows_a_job_in_the_rows_of_all_its_devices() -> None:
    events: list[dict[str, Any]] = [{"time": 0.0, "event": "source_begun", "source": "code", "cards": 2}]
    events += [{"time": 1.0, "event": "worker_begun", "source": "code", "worker": 1, "tasks": ["a"]}]
    events += [{"time": 4.0, "event": "task_done", "source": "code", "worker": 1, "task": "a"}]
    events += [{"time": 4.0, "event": "source_begun", "source": "ttft"}]
    events += [{"time": 5.0, "event": "worker_begun", "source": "ttft", "worker": 1, "tasks": ["a"]}]
    events += [{"time": 6.0, "event": "task_done", "source": "ttft", "worker": 1, "task": "a"}]
    bars = [(bar.worker, bar.begin, bar.end) for bar in read_timeline(events).bars]
    assert bars == [("model 2", 1.0, 4.0), ("model 3", 1.0, 4.0), ("model 1", 5.0, 6.0)]


# A worker as a library makes it that starts processes: a spawned child with shared memory, and a handler at its exit that waits for good.
ENTRY = textwrap.dedent(
    """
    import atexit, multiprocessing, os, time
    from multiprocessing.shared_memory import SharedMemory
    from pathlib import Path

    def sleep(folder, name):
        held = SharedMemory(name)
        (folder / "child").write_text(str(os.getpid()))
        time.sleep(60)

    def open_worker(settings, beat):
        folder = Path(settings["folder"])
        memory = SharedMemory(create=True, size=1000)
        child = multiprocessing.get_context("spawn").Process(target=sleep, args=(folder, memory.name))
        child.start()
        while not (folder / "child").exists() or (folder / "child").read_text() != str(child.pid):
            time.sleep(0.02)
        (folder / "memory").write_text(memory.name)
        atexit.register(time.sleep, 60)

        def do(job):
            if job["tasks"][0].startswith("raise"):
                raise RuntimeError("a card is lost")
            time.sleep(60)
        return do
    """
)


@pytest.mark.parametrize(("tasks", "reason"), [(["hang"], "silent for"), (["raise", "raise again"], "ended with exit code 3")])
def test_nothing_that_a_worker_started_is_left_of_it(tasks: list[str], reason: str, tmp_path: Path) -> None:
    """The second task needs a worker that follows the first: it waits for the first one's end."""
    (tmp_path / "entry.py").write_text(ENTRY)
    timeouts = Timeouts(startup_timeout=60.0, heartbeat_timeout=0.5, max_failures=1)
    backend = Backend("test", "entry:open_worker", lambda number: {"folder": str(tmp_path)}, timeouts)
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    config = ProcessConfig(tmp_path / "logs", lambda number: environment)
    began = time.monotonic()
    events: list[Event] = list(run_jobs([Job((task,)) for task in tasks], backend, config, WorkerQuota(1), began + 60))
    assert [event.reason.startswith(reason) for event in events if event.kind == "lost"][:1] == [True]
    assert [event.task_ids for event in events if event.kind == "given_up"] == [(task,) for task in tasks]
    assert time.monotonic() - began < 30, "an exit handler was waited for"
    assert not is_alive(int((tmp_path / "child").read_text()))
    assert not Path("/dev/shm", (tmp_path / "memory").read_text()).exists()


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_two_processes_of_vllm_answer_as_one_model_and_leave_nothing(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vllm is not installed")
    torch.set_num_threads(1)
    alone = {one.id: one for one in load_transformers_engine(tiny_model, torch.device("cpu"), slots=4)[0].generate(vllm_ranks.requests())}
    before = set(Path("/dev/shm").iterdir())
    settings = {"model": str(tiny_model), "cards": 2}
    timeouts = Timeouts(startup_timeout=900.0, heartbeat_timeout=300.0, max_failures=1)
    backend = Backend("vllm", "vllm_ranks:open_worker", lambda number: settings, timeouts)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    config = ProcessConfig(tmp_path / "logs", lambda number: {**worker_environment(1, "cpu"), "PYTHONPATH": paths})
    processes: list[psutil.Process] = []
    result: dict[str, Any] = {}
    for event in run_jobs([Job(("answer",))], backend, config, WorkerQuota(1), time.monotonic() + 1700):
        if event.kind == "ready":
            processes = [psutil.Process(event.pid), *psutil.Process(event.pid).children(recursive=True)]
        result = event.result if event.kind == "done" else result
    assert result["tokens"] == {key: one.tokens for key, one in alone.items()}
    assert "divided over 2 processes" in result["reason"]
    assert len(processes) >= 3
    assert not any(is_alive(process.pid) for process in processes)
    left = [path for path in Path("/dev/shm").iterdir() if path not in before and path.name.startswith(("psm_", "sem."))]
    assert not left, "vllm's queues are left in shared memory"
