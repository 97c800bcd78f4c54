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
# # A dry run with scores
# The same run as for a submission, on tasks whose solutions are known: the competition's evaluation tasks where it is attached, ARC-AGI-1's
# where it is not. For measuring only: nothing that is found here may become a rule or training data.

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
from IPython.display import Image, display

from arc_submit.arc.datasets import find_competition
from arc_submit.kaggle.inputs import save_results
from arc_submit.kaggle.parameters import check_parameters
from arc_submit.kaggle.run_parameters import run_parameters
from arc_submit.run.kaggle_paths import KAGGLE, KAGGLE_INPUT
from arc_submit.run.pipeline import run
from arc_submit.run.presets import keyword_names, make_config

# %% tags=["parameters"]
# Every option of a run (docs/usage.md) is a parameter, here or with papermill -p: method, base_adapter, ttft_steps, lora_rank, ...
preset = None  # "auto", or a name: hardware and model; None: auto where a GPU and a model are there, else "cpu-pocket"
model = None  # a folder, or the name of an attached model; the only one that is attached, off Kaggle the pocket model
model_config = None  # how to ask a model without an arc_submit.json: a format's name, a file, or an attached one's name; see docs/kaggle.md
out = None  # run directory; on Kaggle in its scratch folder
sources = "search,ttft,frozen"  # in the order of trust
split = "evaluation"  # of ARC-AGI-1, where no competition is attached
tasks = 40  # a random sample; None takes all
seed = 0
budget = "10m"
challenges = None  # another challenges file, with
solutions = None  # its solutions

# %%
check_parameters(options=keyword_names())
if challenges is None and KAGGLE_INPUT.is_dir():
    files = find_competition(KAGGLE_INPUT)
    challenges, solutions = files.evaluation_challenges, files.evaluation_solutions

# %%
config = make_config(**run_parameters(globals(), KAGGLE, "evaluate"))
result = run(config)

# %% [markdown]
# ## Scores, and what went wrong

# %%
print(result.report.text)

# %%
print(f"{len(result.done)} tasks done, {len(result.failed)} failures, {len(result.unfinished)} tasks unfinished")
for place, reason in result.failed.items():
    print(f"{place}: {reason}")
print(f"{len(save_results(KAGGLE, config.out))} files copied to the output")

# %%
for picture in result.report.pictures:
    display(Image(filename=str(picture)))
