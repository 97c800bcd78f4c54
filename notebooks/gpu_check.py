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
# # What a card takes and gives
# A first session on a GPU: which attention the card takes, how long a worker starts, milliseconds of a step of training and of decoding,
# skipped float16 steps, and the peak memory beside the memory plan's. The file that it writes corrects the plan and the costs of a run:
# `arc-submit plan --measured FILE`, `run --measured FILE`, and `measured` in the submission notebook.

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
from arc_submit.base_model.pocket import pocket_folder
from arc_submit.base_model.settings import LoraSettings
from arc_submit.finetune.gpu_check import TINY, check_gpu
from arc_submit.kaggle.inputs import find_model, run_folder
from arc_submit.kaggle.parameters import check_parameters
from arc_submit.run.kaggle_paths import KAGGLE, KAGGLE_WORKING

# %% tags=["parameters"]
model = None  # a folder, or the name of an attached model; the only one that is attached, off Kaggle the pocket model
device = "cuda:0"  # "cpu" for a rehearsal with short samples
rank = 128  # of the adapter that is trained; 256 for Qwen3 by NVARC's recipe
targets = "q_proj,k_proj,v_proj,o_proj"
out = None  # the file; on Kaggle gpu_check.json in its output

# %%
check_parameters()
folder = find_model(KAGGLE, model) or pocket_folder()
file = out or (KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else run_folder(KAGGLE, "gpu_check")) / "gpu_check.json"
lora = LoraSettings(rank=int(rank), targets=tuple(targets.split(",")))
figures = check_gpu(folder, device, Path(file), lora, TINY if device == "cpu" else None)

# %% [markdown]
# ## What the plan makes of it

# %%
from arc_submit.run.measured import read_measured, text_of

print(text_of(read_measured(Path(file))))
