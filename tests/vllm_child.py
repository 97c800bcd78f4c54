"""The process in which tests/test_vllm_engine.py runs vllm, because vllm changes its process permanently.

python tests/vllm_child.py FOLDER    reads input.json in it and writes output.json
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from arc_submit.errors import ConfigError
from arc_submit.inference.engine import Completion, Request
from arc_submit.inference.vllm_compat import make_core
from arc_submit.inference.vllm_engine import Serving, VllmEngine, load_vllm_engine


def to_json(completions: list[Completion]) -> list[dict[str, Any]]:
    return [vars(completion) for completion in completions]


def request(value: dict[str, Any]) -> Request:
    return Request(value["id"], value["prompt"], value["max_new_tokens"], Path(value["adapter"]) if value["adapter"] else None)


def refusal(engine: VllmEngine, requests: list[Request]) -> str:
    try:
        return f"not refused: {list(engine.generate(requests))}"
    except ConfigError as error:
        return f"{type(error).__name__}: {error}"


def main(folder: Path) -> None:
    inputs = json.loads((folder / "input.json").read_text())
    adapters = [Path(path) for path in inputs["adapters"]]
    engine, _, reason = load_vllm_engine(Path(inputs["model"]), torch.device("cpu"), 1024, 4, Serving(adapters[:4], views=2))
    main_requests = [request(value) for value in inputs["requests"]]
    base = main_requests[0]
    result: dict[str, Any] = {"reason": reason}

    steps: list[float] = []
    result["main"] = to_json(list(engine.generate(main_requests, lambda: steps.append(time.monotonic()))))
    result["steps"] = len(steps)

    # Every adapter once, in random order, then the first ones again.
    process = psutil.Process()
    sizes = []
    swaps = []
    for number, value in enumerate(inputs["swaps"]):
        swaps += to_json(list(engine.generate([request(value)])))
        if number % 10 == 9:
            sizes.append(process.memory_info().rss)
    result |= {"swaps": swaps, "sizes": sizes, "held": len(engine.core.list_loras()) if hasattr(engine.core, "list_loras") else None}
    result["again"] = to_json(list(engine.generate(main_requests[:6])))

    long = [Request(f"long{i}", base.prompt, 400) for i in range(3)]
    short = Request("short", base.prompt, 3)
    ended: list[str] = []
    for completion in engine.generate([*long, short]):
        ended.append(completion.id)
        break
    result["first_ended"] = ended
    result["unfinished_after_break"] = engine.core.get_num_unfinished_requests()
    deadline = time.monotonic() + 0.3
    result["deadline"] = to_json(
        list(engine.generate([short, *[Request(f"l{i}", base.prompt, 800) for i in range(40)]], deadline=deadline))
    )
    result["late"] = time.monotonic() - deadline
    result["unfinished_after_deadline"] = engine.core.get_num_unfinished_requests()

    broken = {name: Path(path) for name, path in inputs["broken"].items()}
    result["refusals"] = {name: refusal(engine, [base, Request("bad", base.prompt, 3, path)]) for name, path in broken.items()}
    result["over"] = refusal(engine, [base, Request("bad", [5] * 1020, 10)])
    result["empty"] = refusal(engine, [base, Request("bad", [], 10)])

    # An adapter that is deleted after its check and before it is loaded.
    vanishing = folder / "vanishing"
    shutil.copytree(adapters[-1], vanishing)
    several = [Request(f"held{i}", base.prompt, 40, adapters[0]) for i in range(6)]
    gone = [Request(f"gone{i}", base.prompt, 40, vanishing) for i in range(2)]
    result["vanished"] = to_json(list(engine.generate([*several, *gone], lambda: shutil.rmtree(vanishing, ignore_errors=True))))

    def fail() -> list[Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    step = engine.core.step
    engine.core.step = fail
    try:
        list(engine.generate(main_requests[:3]))
        result["step_error"] = "none"
    except RuntimeError as error:
        result["step_error"] = str(error)
    engine.core.step = step
    result["unfinished_after_error"] = engine.core.get_num_unfinished_requests()
    engine.core.step = list
    try:
        list(engine.generate(main_requests[:3]))
        result["stuck"] = "none"
    except RuntimeError as error:
        result["stuck"] = str(error)
    engine.core.step = step

    # An older vllm, which ignores ranks and alphas by module and knows fewer arguments.
    import vllm.lora.peft_helper as helper

    patterned = folder / "patterned"
    shutil.copytree(adapters[0], patterned)
    config = json.loads((patterned / "adapter_config.json").read_text()) | {"alpha_pattern": {"q_proj": 2}}
    (patterned / "adapter_config.json").write_text(json.dumps(config))
    new_helper = helper.PEFTHelper
    helper.PEFTHelper = dataclasses.make_dataclass("PEFTHelper", ["r", "lora_alpha"])
    result["patterned_old"] = refusal(engine, [Request("bad", base.prompt, 3, patterned)])
    helper.PEFTHelper = new_helper
    result["reads_patterns"] = "alpha_pattern" in {field.name for field in dataclasses.fields(new_helper)}
    if result["reads_patterns"]:
        result["patterned"] = to_json(list(engine.generate([Request("patterned", base.prompt, 12, patterned)])))
    else:
        result["patterned"] = refusal(engine, [Request("patterned", base.prompt, 12, patterned)])
    result["patterned_path"] = str(patterned)
    try:
        make_core(model=inputs["model"], no_such_argument=1)
        result["unknown_argument"] = "none"
    except ConfigError as error:
        result["unknown_argument"] = str(error)

    # Long enough that two prompts are more than one step reads.
    sampled = [Request(f"{n}-{copy}", [5 + (n + i * i) % 40 for i in range(700)], 30, None, 1.0, n) for n in range(6) for copy in range(2)]
    result["sampled"] = to_json(list(engine.generate(sampled)))
    result["dead_end"] = to_json(list(engine.generate([Request("h", base.prompt, 400, dead_end=lambda tokens: len(tokens) >= 20)])))
    result["scores"] = [
        engine.score(value["prompt"], value["continuations"], Path(value["adapter"]) if value["adapter"] else None)
        for value in inputs["scores"]
    ]
    result["last"] = to_json(list(engine.generate(main_requests[:6])))
    (folder / "output.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
