"""A trained model as its run saw it: the base, its number formats, and the adapters that lie on one another."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lit_align.models.adapter_folder import AdapterFolder
from lit_align.models.adapter_sum import Factors, summed
from lit_align.models.adapter_switch import AdapterSwitch
from lit_align.models.loading import Weights
from lit_align.tokenizer import PACKAGE_PREFIX

logger = logging.getLogger(__name__)

Precision = Literal["32-true", "bf16-mixed"]
_RUN, _STAGES = "config.yaml", "stages.json"


@dataclass(frozen=True)
class TrainedModel:
    """A base with finished adapters on it.

    Attributes:
        base: See :func:`lit_align.tokenizer.resolve_base`.
        weights: Number format and quantisation under which the adapters were trained.
        precision: ``trainer.precision`` of the run.
        folders: The adapters, the lowest first.
    """

    base: str
    weights: Weights
    precision: Precision
    folders: tuple[AdapterFolder, ...]

    @cached_property
    def factors(self) -> dict[str, Factors]:
        """The sum of the adapters, by the layer's name."""
        return summed([folder.factors(self.base) for folder in self.folders])

    def refuse_misfit(self) -> None:
        """Refuse adapters that are broken, do not fit the base or are named twice; no weights of the base are read.

        Raises:
            FileNotFoundError: An adapter or the base is not there.
            ValueError: As of :meth:`AdapterFolder.factors`, or an adapter is named twice.
        """
        if len({folder.digest() for folder in self.folders}) < len(self.folders):
            raise ValueError(
                f"`adapters` names one adapter twice ({', '.join(one.path for one in self.folders)}): it would count "
                "double"
            )
        assert self.factors


def trained_model(
    adapters: Sequence[str], base: str, weights: Weights | None, precision: Precision | None
) -> TrainedModel:
    """The model that adapters were trained as; what is not given is read from the ``config.yaml`` of the run.

    Args:
        adapters: Folders in PEFT's format or checkpoints of ours, the lowest first.
        base: The base; empty for that of the run.
        weights: As trained; None for those of the run.
        precision: As trained; None for that of the run, or ``32-true`` without one.

    Raises:
        FileNotFoundError: A checkpoint without the folder of its adapter.
        ValueError: Neither given nor to be read; or an adapter was trained on top of one that is not named before it.
    """
    folders = [_folder(path) for path in adapters]
    for place, folder in enumerate(folders):
        _refuse_missing(folder, folders[:place])
    run = _run_of(folders[-1])
    found = {} if run is None else _trained_with(_config(run))
    given = {"base": base or None, "weights": weights, "precision": precision}
    chosen: dict[str, Any] = {"precision": "32-true", **found}
    for key, value in given.items():
        if value is None and key not in chosen:
            raise ValueError(
                f"`{key}` must be given: adapter {folders[-1].path} does not lie in the folder of a run, whose {_RUN} "
                "would say what it was trained with"
            )
        if value is not None and value != found.get(key, value):
            logger.info(f"`{key}` is {value}, and adapter {folders[-1].path} was trained with {found[key]}")
        chosen[key] = chosen[key] if value is None else value
    return TrainedModel(**chosen, folders=tuple(folders))


def _trained_with(config: Mapping[str, Any]) -> dict[str, Any]:
    model = config["model"]["init_args"]
    # Of the two that a fit accepts, in whatever way Lightning lets one write them.
    mixed = str(config.get("trainer", {}).get("precision")).startswith("bf16")
    return {
        "base": model["base"],
        "weights": Weights(**model["weights"]),
        "precision": "bf16-mixed" if mixed else "32-true",
    }


def _folder(path: str) -> AdapterFolder:
    if (folder := AdapterSwitch(path).folder) is None:
        raise ValueError(f"`adapters` names {path!r}, the bare base: name the folders of the adapters on it")
    return folder


def _place(folder: AdapterFolder) -> Path | None:
    return None if folder.path.startswith(PACKAGE_PREFIX) else Path(folder.path).expanduser().absolute()


def _run_of(folder: AdapterFolder) -> Path | None:
    """The folder of the run that wrote an adapter or a checkpoint; None for one from elsewhere."""
    place = _place(folder)
    runs = [] if place is None else [place.parent, place.parent.parent]
    return next((run for run in runs if (run / _RUN).is_file() and _config(run)), None)


def _config(run: Path) -> Mapping[str, Any]:
    """What a run was configured with; empty where the file is of something else."""
    import yaml

    path = run / _RUN
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no YAML in UTF-8: {error}; give `base`, `weights` and `precision`") from error
    model = held.get("model") if isinstance(held, Mapping) else None
    options = model.get("init_args") if isinstance(model, Mapping) else None
    return held if isinstance(options, Mapping) and {"base", "weights"} <= {*options} else {}


def _refuse_missing(folder: AdapterFolder, before: Sequence[AdapterFolder]) -> None:
    """Refuse an adapter that was trained on top of others, where one of them is not named before it."""
    run = _run_of(folder)
    if run is None:
        return
    below = _below(run, folder)
    known = {_place(one) for one in before} - {None}  # what lies in a package has no place of its own
    digests = {one.digest() for one in before}
    for path in below:
        lower = AdapterFolder(next((str(one) for one in (run / path, Path(path)) if one.is_dir()), path))
        try:
            there = _place(lower) in known or lower.digest() in digests
        except FileNotFoundError:  # it has been moved, and may be the one that is named
            there = len(before) >= len(below)
            logger.info(f"{run / _RUN}: {path} is no longer there, so it is not compared with what `adapters` names")
        if not there:
            raise ValueError(
                f"adapter {folder.path} was trained on top of {path} ({run / _RUN}), without which it is another "
                f"model: `adapters` must name {', '.join(below)} before it"
            )


def _below(run: Path, folder: AdapterFolder) -> list[str]:
    """The adapters on which a run trained one of its own."""
    if (run / _STAGES).is_file():
        stages = json.loads((run / _STAGES).read_text(encoding="utf-8"))["stages"]
        for stage in reversed(stages):  # `adapter/` and the last checkpoint hold what the last stage ended with
            if AdapterFolder(str(run / stage["adapter"])).digest() == folder.digest():
                return list(stage["below"])
        raise ValueError(
            f"adapter {folder.path} is of a run with stages, and what none of them ended with: `adapters` may "
            f"name {', '.join(str(run / path) for path in stages[-1]['policy'])}"
        )
    for reference in _references(_config(run)["model"]["init_args"].get("reference")):
        options = reference.get("init_args", {})
        paths = [options["path"]] if isinstance(options["path"], str) else list(options["path"])
        return paths if options.get("init", "stack") == "stack" else paths[:-1]
    return []


def _references(held: Any) -> Iterator[Mapping[str, Any]]:
    """The frozen adapters of a reference, also inside of a cache or an average."""
    if isinstance(held, Mapping):
        if str(held.get("class_path", "")).endswith("FrozenAdapterReference"):
            yield held
        for value in held.values():
            yield from _references(value)
