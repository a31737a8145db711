"""The forgetting matrix in the folder of a run and in its loggers."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Collection, Mapping
from typing import Any

import lightning.pytorch as pl

from lit_align.callbacks.measurement import run_folder
from lit_align.checkpoint import write_whole
from lit_align.evals.matrix import Matrix
from lit_align.evals.matrix_plot import draw_heat_map, draw_learning
from lit_align.evals.matrix_table import matrix_table, plain_matrix

logger = logging.getLogger(__name__)


def write_matrix(
    trainer: pl.Trainer, found: Matrix, outcomes: Mapping[str, str], asked: Collection[str], step: int
) -> str:
    """Write ``matrix.md``, ``matrix.json``, ``matrix.png`` and ``learning-vs-kl.png``, each whole or not at all.

    TensorBoard gets the pictures too. Without matplotlib (extra ``[plots]``) there are none, and a line says so, as it
    does where one cannot be written: ``matrix.json`` has all that they show.

    Args:
        trainer: Of the run; call it on all ranks.
        found: The matrix.
        outcomes: What became of a stage, by its name, where that is to be said.
        asked: Measures that gates ask for, which the table shows with the main ones.
        step: Windows completed.

    Returns:
        The table.

    Raises:
        OSError: The disk is full, and a table is not written.
    """
    table = matrix_table(found, outcomes, asked)
    folder = run_folder(trainer)
    if folder is None or not trainer.is_global_zero:
        return table
    write_whole(folder / "matrix.md", [f"{table}\n".encode()])
    plain = json.dumps(plain_matrix(found, outcomes), indent=1, ensure_ascii=False)
    write_whole(folder / "matrix.json", [f"{plain}\n".encode()])
    try:
        pictures = {"matrix": draw_heat_map(found, outcomes), "learning-vs-kl": draw_learning(found)}
    except ModuleNotFoundError as error:
        logger.warning(f"matrix.png is not drawn: {error}")
        return table
    for name, picture in pictures.items():
        if picture is None:
            continue
        try:
            write_whole(folder / f"{name}.png", [picture])
        except OSError as error:  # on Windows also while a viewer has it open
            logger.warning(f"{name}.png is not written: {error}")
        _show(trainer, name, picture, step)
    return table


def _show(trainer: pl.Trainer, name: str, picture: bytes, step: int) -> None:
    from matplotlib.image import imread

    pixels: Any = imread(io.BytesIO(picture))
    for one in trainer.loggers:
        add_image = getattr(getattr(one, "experiment", None), "add_image", None)
        if callable(add_image):
            add_image(f"stages/{name}", pixels[..., :3], step, dataformats="HWC")
