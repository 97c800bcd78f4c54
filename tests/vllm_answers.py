"""The process in which tests/test_smollm2.py runs vllm, because vllm changes its process permanently.

python tests/vllm_answers.py FOLDER    reads input.json in it and writes output.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from arc_submit.inference.engine import Request
from arc_submit.inference.vllm_engine import Serving, load_vllm_engine


def main(folder: Path) -> None:
    """Answer all requests, with the adapters that they name."""
    inputs = json.loads((folder / "input.json").read_text())
    requests = [
        Request(value["id"], value["prompt"], value["max_new_tokens"], Path(value["adapter"]) if value["adapter"] else None)
        for value in inputs["requests"]
    ]
    adapters = sorted({request.adapter for request in requests if request.adapter})
    engine, _, reason = load_vllm_engine(Path(inputs["model"]), torch.device("cpu"), 1024, 4, Serving(adapters, views=2))
    print(reason)
    (folder / "output.json").write_text(json.dumps([vars(completion) for completion in engine.generate(requests)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
