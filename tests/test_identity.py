"""What makes two runs the same run, as far as it lies in the files of a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from arc_submit.models.checks import files_identity


def test_what_tells_a_large_file_is_in_it_from_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    content = np.random.default_rng(0).integers(0, 256, 3_000_001, np.uint8)
    path.write_bytes(content.tobytes())
    (tmp_path / "README.md").write_text("no file that a model is read from")
    told = files_identity(tmp_path)
    assert list(told) == ["model.safetensors"]
    assert files_identity(tmp_path) == told
    others = {told["model.safetensors"]}
    for at in (0, len(content) - 1):
        changed = content.copy()
        changed[at] ^= 1
        path.write_bytes(changed.tobytes())
        others.add(files_identity(tmp_path)["model.safetensors"])
    for start in range(0, len(content), len(content) // 19):  # wherever a twentieth of the weights lies that was trained
        changed = content.copy()
        changed[start : start + len(content) // 20] ^= 1
        path.write_bytes(changed.tobytes())
        others.add(files_identity(tmp_path)["model.safetensors"])
    assert len(others) == 1 + 2 + 20
