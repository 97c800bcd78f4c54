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
# # Submission
# From the competition's test file (or, where there is none, ARC-AGI-1 evaluation tasks) to `submission.json`: program search, the model
# as it is and the model fine-tuned on each task. The file is complete and valid from the first second on and gets better as answers come.

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

from arc_submit.kaggle.inputs import save_results
from arc_submit.kaggle.parameters import check_parameters
from arc_submit.kaggle.run_parameters import run_parameters
from arc_submit.run.kaggle_paths import KAGGLE
from arc_submit.run.pipeline import run
from arc_submit.run.presets import keyword_names, make_config

# %% tags=["parameters"]
# Every option of a run (docs/usage.md) is a parameter, here or with papermill -p: method, base_adapter, ttft_steps, lora_rank, ...
preset = None  # "auto", or a name: hardware and model; None: auto where a GPU and a model are there, else "cpu-pocket"
model = None  # a folder, or the name of an attached model; the only one that is attached, off Kaggle the pocket model
model_config = None  # how to ask a model without an arc_submit.json: a format's name, a file, or an attached one's name; see docs/kaggle.md
out = None  # run directory; on Kaggle in its scratch folder
tasks = 40  # a random sample; in a competition's re-run all tasks are worked on
seed = 0
budget = "10m"
rerun_budget = "11h30m"  # of a competition's re-run
measured = None  # file of gpu_check.ipynb of this card and model, or the name of an attached one
challenges = None  # another challenges file
solutions = None  # its solutions, to score the run

# %%
check_parameters(options=keyword_names())
config = make_config(**run_parameters(globals(), KAGGLE, "submission"))
result = run(config)

# %% [markdown]
# ## What came of it

# %%
print(result.report.text)
print(result.submission)
print(f"{len(save_results(KAGGLE, config.out))} files copied to the output")

# %%
for picture in result.report.pictures:
    display(Image(filename=str(picture)))
