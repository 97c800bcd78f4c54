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
# # A task that fails
# One task from end to end: its pictures, the prompts that the model is shown, the answers of the search with their programs, the model's
# predictions with and without fine-tuning, and the votes.

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

from arc_submit.arc.files import file_name
from arc_submit.kaggle.parameters import check_parameters, task_of
from arc_submit.kaggle.run_parameters import run_parameters
from arc_submit.report.votes import plot_votes, votes_table
from arc_submit.run.debug_task import answers_table, prompts_table, read_prompts
from arc_submit.run.kaggle_paths import KAGGLE
from arc_submit.run.pipeline import run
from arc_submit.run.presets import keyword_names, make_config

# %% tags=["parameters"]
# Every option of a run (docs/usage.md) is a parameter, here or with papermill -p: method, base_adapter, ttft_steps, lora_rank, ...
preset = "cpu-pocket"
task = "67a3c6ac"
challenges = None  # challenges file that holds the task; ARC-AGI-1 training tasks where there is none
solutions = None  # its solutions
model = None  # a folder, or the name of an attached model; the only one that is attached, off Kaggle the pocket model
model_config = None  # how to ask a model without an arc_submit.json: a format's name, a file, or an attached one's name
out = None  # run directory; on Kaggle in its scratch folder
sources = "search,ttft,frozen"
seed = 0
views = 8
ttft_views = 8
ttft_steps = 50
budget = "10m"

# %%
check_parameters(options=keyword_names() - {"task_ids"})
task = task_of(task, challenges)  # papermill takes an id of digits for a number
own = {"split": "training", "pictures": 1, **run_parameters(globals(), KAGGLE, f"debug_task-{file_name(task)}"), "task_ids": (task,)}
config = make_config(**own)
result = run(config)
print(result.report.text)

# %% [markdown]
# ## The task and its two attempts

# %%
display(Image(filename=str(config.out / "report" / f"task-{file_name(task)}.png")))

# %% [markdown]
# ## What the model is shown: every view's prompt by length, and the first in full

# %%
prompts, refused = read_prompts(config, task)
print(prompts_table(prompts, refused))

# %%
for prompt in prompts[:1]:
    print(prompt.text)

# %% [markdown]
# ## What each source answers: the search with its programs, the model with its views

# %%
for source in config.sources:
    print(answers_table(config.out, task, source), end="\n\n")

# %% [markdown]
# ## Votes

# %%
print(votes_table(config.out, task))

# %%
display(Image(filename=str(plot_votes(config.out, task))))
