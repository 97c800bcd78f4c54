"""The names of the experiments and what each shows. The module of an experiment has its name, with "_" for "-"."""

from __future__ import annotations

EXPERIMENTS = {
    "splits": "one adapter for all tasks, for groups of them or for each, at the same total of steps",
    "temperature": "sampling temperature against accuracy, pass_n and vote_2",
    "predictions": "number of predictions against pass_n and vote_2, from the predictions of one run",
    "rank-rate": "LoRA rank, learning rate, and a fresh adapter or a continued one, at the same steps",
    "steps-batch": "many steps of small batches against few of large ones, at the same number of samples",
    "speed": "tokens of inputs and of outputs against the time of training and of inference",
    "losses": "loss curves of several runs in one picture",
    "lora-parameters": "values in a LoRA adapter by rank and model, from config.json alone",
}
