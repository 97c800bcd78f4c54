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
# # The wheels, made on Kaggle
# For a notebook with internet on: the wheels that a target's lock names, fetched on Kaggle's own machine and proven to install offline. A
# submission, which has no internet, attaches this notebook's output as a kernel source. Attach the bundle to this one: it holds the locks.

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
from importlib.metadata import distributions

from arc_submit.arc.datasets import find_folders
from arc_submit.kaggle.parameters import check_parameters
from arc_submit.kaggle.targets import read_target
from arc_submit.kaggle.wheels import make_wheelhouse
from arc_submit.run.kaggle_paths import KAGGLE_INPUT, KAGGLE_WORKING

# %% tags=["parameters"]
target = "kaggle"  # a file of offline_wheels: kaggle, kaggle-next, cpu
targets = None  # another folder of targets and locks
out = None  # on Kaggle in what the notebook keeps

# %%
check_parameters()
folder = Path(out) if out else (KAGGLE_WORKING if KAGGLE_WORKING.is_dir() else Path("runs")) / "wheels"
found = [Path(targets)] if targets else find_folders(KAGGLE_INPUT, f"{target}.lock.json", 7) if KAGGLE_INPUT.is_dir() else []
figures = make_wheelhouse(read_target(target, found[0] if found else None), folder)

# %% [markdown]
# ## What came of it, and what this image has
# The list says which packages an image really has, and in which versions: offline_wheels/ knows no more than its torch.

# %%
for name, value in figures.items():
    print(f"{name}: {value}")
packages = sorted({f"{package.metadata['Name']}=={package.version}" for package in distributions()}, key=str.lower)
(folder.parent / "image-packages.txt").write_text("\n".join(packages) + "\n")
print("\n".join(packages))
