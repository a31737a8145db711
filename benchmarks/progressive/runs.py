"""The runs of the comparison: the progressive quickstart, with another reference, and all of its pairs at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.progressive import fit
from benchmarks.progressive.fit import COST

Config = dict[str, Any]

QUICKSTART = Path(__file__).parents[2] / "configs" / "dpo" / "quickstart-progressive.yaml"
ARMS = {
    "previous": "stages, reference `previous`",
    "base": "stages, reference `base`",
    "joint": "joint",
}


@dataclass(frozen=True)
class Run:
    """One run and where it lies.

    Attributes:
        arm: A key of :data:`ARMS`.
        seed: Of the adapters, of dropout and of the order of the pairs.
        folder: Its own.
        config: All of its settings.
    """

    arm: str
    seed: int
    folder: Path
    config: Config

    @property
    def is_finished(self) -> bool:
        """Whether it has ended well."""
        return (self.folder / COST).exists()

    @property
    def cost(self) -> dict[str, float]:
        """Seconds of a finished run, ``cpu_s`` and ``wall_s``."""
        found: dict[str, float] = json.loads((self.folder / COST).read_text(encoding="utf-8"))
        return found

    @property
    def record(self) -> Path:
        """The folder that the last try has left."""
        return max(self.folder.glob("lightning_logs/*/version_*"), key=lambda path: int(path.name.split("_")[1]))

    def fit(self) -> None:
        """Train, by the command; what it says goes to ``log.txt``.

        Raises:
            CalledProcessError: It failed; the log says why.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        words = [sys.executable, str(Path(fit.__file__).resolve()), str(self.folder)]
        with (self.folder / "log.txt").open("w", encoding="utf-8") as log:
            subprocess.run(words, check=True, stdout=log, stderr=subprocess.STDOUT)


def run_of(arm: str, seed: int, root: Path, quickstart: Config) -> Run:
    """A run; its folder has a name for its settings, so that other settings have another one.

    Args:
        arm: A key of :data:`ARMS`.
        seed: The seed.
        root: Folder of all runs.
        quickstart: The settings that the arms depart from.
    """
    made: dict[str, Callable[[Config], Config]] = {"previous": deepcopy, "base": compared_with_base, "joint": joint}
    config = made[arm](quickstart)
    config["seed_everything"] = config["data"]["init_args"]["seed"] = seed
    digest = hashlib.sha256(yaml.safe_dump(config).encode()).hexdigest()[:8]
    return Run(arm, seed, root / f"{arm}-seed-{seed}-{digest}", config)


def stages_of(config: Config) -> list[Config]:
    """What ``StageTransition`` does in each stage."""
    [stages] = [
        one["init_args"]["stages"] for one in config["trainer"]["callbacks"] if one["class_path"] == "StageTransition"
    ]
    found: list[Config] = stages
    return found


def compared_with_base(quickstart: Config) -> Config:
    """The same stages, each compared with the bare base."""
    config = deepcopy(quickstart)
    for stage in stages_of(config):
        stage["reference"] = "base"
    return config


def joint(quickstart: Config) -> Config:
    """One stage on the pairs of all of them, at the shares that they have over the whole run, and as long.

    Its one adapter has as many parameters as those of all stages together, and their scale.
    """
    config = deepcopy(quickstart)
    data, model = config["data"]["init_args"], config["model"]["init_args"]
    stages = data.pop("stages")
    pairs: dict[str, float] = defaultdict(float)
    for stage in stages:
        for name, n in _drawn(stage, data["window"]).items():
            pairs[name] += n
    sources = {json.dumps(source): source for stage in stages for source in stage["sources"]}
    shapes = [stage["lora"] for stage in stages_of(config)]
    [scale] = {shape["alpha"] / shape["rank"] for shape in shapes}
    rank = sum(shape["rank"] for shape in shapes)
    size = sum(pairs.values())
    config["name"] += "-joint"
    config["data"]["class_path"] = "PreferenceDataModule"
    data["sources"] = list(sources.values())
    data["mix"] = {"weights": {name: n / size for name, n in pairs.items()}, "by": "repeat", "size": round(size)}
    model["lora"] = {"rank": rank, "alpha": scale * rank}
    callbacks = config["trainer"]["callbacks"]
    config["trainer"]["callbacks"] = [one for one in callbacks if one["class_path"] != "StageTransition"]
    return config


def _drawn(stage: Config, window: int) -> dict[str, float]:
    """Pairs of each source in the windows of a stage, by the source's name in the log."""
    size = stage["pairs"] if "pairs" in stage else stage["windows"] * window
    if "mix" in stage:
        weights = stage["mix"]["weights"]
        return {name: size * weight / sum(weights.values()) for name, weight in weights.items()}
    [source] = stage["sources"]
    return {f"ending_pairs/{source['init_args']['skill']}": size}
