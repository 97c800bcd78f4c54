"""What makes two runs the same run, as far as it lies in the files of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from arc_submit.base_model.checks import files_fingerprint
from arc_submit.base_model.pocket import pocket_folder


@pytest.mark.parametrize("size", [3_000_001, 200_000_001])  # read whole, and in blocks that a third of it lies in
def test_what_tells_a_large_file_is_in_it_from_end_to_end(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(size)  # zeros, which take no room on the disk
    (tmp_path / "README.md").write_text("no file that a model is read from")
    told = files_fingerprint(tmp_path)
    assert list(told) == ["model.safetensors"]
    assert files_fingerprint(tmp_path) == told
    others = {told["model.safetensors"]}
    twentieth = size // 20
    pieces = [(0, 1), (size - 1, 1)]
    pieces += [(start, min(twentieth, size - start)) for start in range(0, size, size // 19)]  # wherever it is that was trained
    with path.open("r+b") as file:
        for number, (start, length) in enumerate(pieces, 1):
            for value in (number, 0):
                file.seek(start)
                file.write(bytes([value]) * length)
                file.flush()
                if value:
                    others.add(files_fingerprint(tmp_path)["model.safetensors"])
    assert files_fingerprint(tmp_path) == told
    assert len(others) == 1 + 2 + 20


def test_the_pocket_models_tokenizer_counts_as_the_one_that_it_replaced() -> None:
    assert files_fingerprint(pocket_folder())["tokenizer.json"] == "7748 bytes, 4d7f839bb8e5678b"
