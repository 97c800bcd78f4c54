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
# # A model too large to be fine-tuned on everything
# A base of 7 billion parameters answers all tasks as it is, several at a time on each of four GPUs. Fine-tuning takes far more memory
# than reading, so only tasks whose samples fit in a short context are fine-tuned on; the others keep what the frozen model and the search
# answer.

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
preset = "hybrid-7b"  # its hyperparameters are those of published runs; it has not been run on its GPUs yet
model = None  # a folder, or the name of an attached model; the only one that is attached
model_config = None  # how to ask a model without an arc_submit.json: a format's name, a file, or an attached one's name; see docs/kaggle.md
out = None  # run directory; on Kaggle in its scratch folder
sources = "search,ttft,frozen"  # in the order of trust
ttft_in_4_bits = False  # keep the base in 4 bits for fine-tuning: less memory, and slower
ttft_max_seq_len = None  # the longest sample that is fine-tuned on; the preset's
ttft_steps = None  # of fine-tuning a task; the preset's
tasks = 20  # a random sample; in a competition's re-run all tasks are worked on
seed = 0
budget = "30m"  # loading 15 GB takes minutes
rerun_budget = "11h30m"  # of a competition's re-run
challenges = None  # another challenges file
solutions = None  # its solutions, to score the run

# %%
check_parameters(options=keyword_names())
config = make_config(**run_parameters(globals(), KAGGLE, "hybrid_7b"))
result = run(config)

# %% [markdown]
# ## Which tasks were fine-tuned on, and what came of it

# %%
tuned = sorted({losses.stem for losses in config.out.glob("**/losses/*.jsonl")})
print(f"{len(tuned)} tasks fine-tuned on samples of at most {config.ttft_max_seq_len} tokens: {', '.join(tuned)}")
print(result.report.text)
print(result.submission)
print(f"{len(save_results(KAGGLE, config.out))} files copied to the output")

# %%
for picture in result.report.pictures:
    display(Image(filename=str(picture)))
