"""What a session on a card has measured (finetune/gpu_check.py), as corrections of the memory plan and of the costs. Needs no torch.

The memory plan is corrected by one factor, measured bytes over planned bytes at the worst; the costs by the seconds of a training step and
of an answer for a thousand tokens. Does not know how they were measured.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from arc_submit.arc.files import read_json
from arc_submit.errors import ConfigError, DataError
from arc_submit.scheduling.costs import RESIDENT_OVERHEAD, CostModel, LinearCost

# Outside of these bounds the file is of another model or card than it says, and no correction.
_LEAST_FACTOR, _MOST_FACTOR = 0.5, 2.0


@dataclass(frozen=True)
class Measured:
    """A measurement.

    Attributes:
        path: of the file.
        card, gib: name and memory of the card; "cpu" and 0.
        parameters: of the model.
        memory_factor: measured bytes over planned bytes, 1 where nothing was measured.
        step_seconds: of a training step for a thousand tokens.
        answer_seconds: of a prediction for a thousand tokens of prompt and answer.
        start_seconds: of a worker until its model is loaded.
    """

    path: Path
    card: str
    gib: float
    parameters: float
    memory_factor: float
    step_seconds: float
    answer_seconds: float
    start_seconds: float

    def costs(self, parameters: float) -> CostModel:
        """The costs of a model, in proportion to its parameters."""
        scale = parameters / self.parameters
        return CostModel(
            LinearCost(RESIDENT_OVERHEAD, self.step_seconds * scale), LinearCost(RESIDENT_OVERHEAD, self.answer_seconds * scale)
        )

    def check_cards(self, names: Iterable[str]) -> None:
        """Refuse figures of another card than a run's.

        Raises:
            ConfigError: naming both.
        """
        if others := sorted(set(names) - {self.card}):
            raise ConfigError(f"--measured {self.path}: measured on {self.card}, and the run is on {', '.join(others)}; measure there")

    def check_size(self, name: str, gib: float) -> None:
        """Refuse figures of a card of another size.

        Raises:
            ConfigError: naming both.
        """
        if self.gib and abs(self.gib - gib) > 0.05 * gib:
            raise ConfigError(f"--measured {self.path}: measured on {self.card} ({self.gib:g} GiB), and --card {name} has {gib:g} GiB")


def read_measured(path: Path) -> Measured:
    """The figures in a file.

    Raises:
        DataError: where it is none of gpu_check's, or holds too little.
    """
    value = read_json(path)
    try:
        training = [row for row in value["training"] if row["fits"]]
        decoding = [row for row in value["decoding"] if row["fits"]]
        factors = [row["peak_gib"] / row["planned_gib"] for row in (*training, *decoding) if row["peak_gib"] and row.get("planned_gib")]
        plain = [row for row in training if not row["checkpointing"]] or training
        # The longest sample and the fullest batch: short ones cost launches more than work.
        longest, fullest = max(plain, key=lambda row: row["tokens"]), max(decoding, key=lambda row: row["slots"])
        measured = Measured(
            path,
            str(value["card"]),
            float(value["gib"] or 0),
            float(value["model"]["parameters"]),
            round(max(factors, default=1.0), 3),
            float(longest["ms_a_step"] / longest["tokens"]),
            float(fullest["ms_an_answer"] / (fullest["prompt"] + fullest["answer"])),
            float(value["start_seconds"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise DataError(f"{path}: not a measurement of notebooks/gpu_check.py ({type(error).__name__}: {error})") from None
    if not _LEAST_FACTOR <= measured.memory_factor <= _MOST_FACTOR or measured.step_seconds <= 0 or measured.answer_seconds <= 0:
        raise DataError(
            f"{path}: memory {measured.memory_factor:g} times the plan, {measured.step_seconds:g} s a step and "
            f"{measured.answer_seconds:g} s an answer are no measurement; run notebooks/gpu_check.py again"
        )
    return measured


def memory_factor(path: Path | None) -> float:
    """The factor of a run's --measured, 1 without one.

    Raises:
        DataError: as `read_measured`.
    """
    return 1.0 if path is None else read_measured(path).memory_factor


def text_of(measured: Measured) -> str:
    """A line for people."""
    return (
        f"measured on {measured.card}: memory {measured.memory_factor:g} times the plan; for a thousand tokens "
        f"{measured.step_seconds:.3g} s a training step and {measured.answer_seconds:.3g} s a prediction; "
        f"a worker starts in {measured.start_seconds:.0f} s"
    )
