"""arc_submit: from a Kaggle ARC Prize test file to the best submission.json the hours can buy.

The package itself imports nothing, so that `arc-submit --help` starts at once; import the rooms you need:
`arc_submit.arc` (what a task is), `arc_submit.language` (tokens), `arc_submit.models` (inference), `arc_submit.training`,
`arc_submit.ensemble`, `arc_submit.runtime`, `arc_submit.report` and `arc_submit.run.pipeline`, which joins them.
"""

__version__ = "0.1.0"
