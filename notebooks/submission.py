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
# From the competition's test file (or, where there is none, ARC-AGI-1 evaluation tasks) to `submission.json`.
# The file is complete and valid from the first second on and gets better as answers come.

# %%
from IPython.display import Image, display

from arc_submit.config import make_config
from arc_submit.pipeline import run
from arc_submit.runtime.budget import parse_duration

# %% tags=["parameters"]
preset = "cpu-pocket"
out = "runs/submission"
tasks = 40  # a random sample; in a competition's re-run all tasks are worked on
seed = 0
budget = "10m"
rerun_budget = "11h30m"  # of a competition's re-run
model = None  # folder of another base model
challenges = None  # another challenges file
solutions = None  # its solutions, to score the run

# %%
config = make_config(
    preset,
    out=out,
    tasks=tasks,
    seed=seed,
    budget=parse_duration(budget),
    rerun_budget=parse_duration(rerun_budget),
    model=model,
    challenges=challenges,
    solutions=solutions,
)
result = run(config)

# %% [markdown]
# ## What came of it

# %%
print(result.report.text)
print(result.submission)

# %%
for picture in result.report.pictures:
    display(Image(filename=str(picture)))
