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
# # Learning from hindsight: the painter
# A small model has seen drawings of one to five shapes. Asked for a picture of many squares it fails at first. Its programs are run, what
# each really draws is a new task whose solution it is, and the model learns from those tasks; then it writes again.

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

from arc_submit.durations import parse_duration
from arc_submit.kaggle.parameters import check_parameters
from arc_submit.programs.painter.paint import Painting, paint, painter_folder
from arc_submit.programs.painter.settings import PainterSettings
from arc_submit.programs.rounds import RoundSettings
from arc_submit.report.painting import line_of, plot_painting

# %% tags=["parameters"]
squares = 16  # a square number up to 900
seed = 0
samples = 16  # programs in a round
learn = True  # False: only write, again and again
rounds = 40
budget = "5m"
out = "runs/paint"  # the same notebook goes on with what is there

# %%
check_parameters()
folder = Path(out) / f"{squares}-{seed}"
settings = RoundSettings(samples=samples, cold_samples=samples // 4, learn=learn, rounds=rounds, seed=seed), PainterSettings()
painting = Painting(squares)

# %%
outcome = paint(painting, settings, painter_folder(), folder, parse_duration(budget), lambda record, ran: print(line_of(record)))

# %%
drawn, curve = plot_painting(folder / "report", painting.task(seed), outcome.records, f"{squares} squares")
display(Image(drawn))
display(Image(curve))

# %%
print(outcome.best.text if outcome.best else "no program")
