"""What is left of the matrix in the folder of a run when something of it cannot be written, or was not measured."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lit_align.callbacks import matrix_files, stages
from lit_align.callbacks.matrix_files import write_matrix
from lit_align.callbacks.stage_record import StageRecord
from lit_align.callbacks.stages import StageTransition
from lit_align.checkpoint import write_whole
from lit_align.evals.item_scores import ItemScores
from lit_align.evals.matrix import matrix
from lit_align.stage import Stage

IDS = [str(i) for i in range(20)]
SCORES = [{"sums": ItemScores(IDS, IDS, IDS, {"right": [x] * 20})} for x in (0.0, 1.0)]


def trainer_in(folder: Path, images: list[str]) -> Any:
    experiment = SimpleNamespace(add_image=lambda name, *_, **__: images.append(name))
    return SimpleNamespace(
        log_dir=str(folder), is_global_zero=True, loggers=[SimpleNamespace(experiment=experiment)], callbacks=[]
    )


def test_a_picture_that_cannot_be_written_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(path: Path, parts: Any) -> None:
        if path.suffix == ".png":
            raise PermissionError(f"{path} is open")
        write_whole(path, parts)

    monkeypatch.setattr(matrix_files, "write_whole", fault)
    images: list[str] = []
    found = matrix(dict(zip(("base", "a"), SCORES, strict=True)), {"sums": {"right": (0.0, 1.0)}})
    with caplog.at_level(logging.WARNING):
        table = write_matrix(trainer_in(tmp_path, images), found, {}, [], 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["matrix.json", "matrix.md"]
    assert (tmp_path / "matrix.md").read_text("utf-8") == f"{table}\n"
    assert [one.getMessage() for one in caplog.records] == [
        f"matrix.png is not written: {tmp_path / 'matrix.png'} is open"
    ]
    assert images == ["stages/matrix"]


@pytest.mark.parametrize("measures", [{}, {"added": {"right": (0.0, 1.0)}}])
def test_a_run_that_is_resumed_without_its_benchmarks_has_no_matrix(
    measures: dict[str, dict[str, tuple[float, float]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "measures_of", lambda _: measures)
    transition = StageTransition([Stage("a", reference="base")])
    transition.scores = list(SCORES)
    transition.records = [StageRecord("a", 0, 2, "adapter-a", [], [], [], "passed", [])]
    transition._write_matrix(trainer_in(tmp_path, []))
    assert not list(tmp_path.iterdir())
