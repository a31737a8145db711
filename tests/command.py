"""The real command as a process of its own, on a run small enough to be repeated many times."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
PATIENCE = 180.0  # seconds; the machine may be busy

Settings = dict[str, Any]

_SMALL: Settings = {
    "name": "run",
    "seed_everything": 0,
    "cpu_threads": 1,
    "model": {
        "class_path": "SFTModule",
        "init_args": {
            "base": "tiny-qwen3",
            "weights": {"dtype": "float32"},
            "lora": {"rank": 4, "alpha": 8, "dropout": 0.1},
            "anchor": {"coef": 1.0, "text": "replayed"},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 3e-3}},
            "schedule": {"class_path": "CosineSchedule", "init_args": {"warmup_steps": 3, "floor": 0.1}},
        },
    },
    "data": {
        "class_path": "SFTDataModule",
        "init_args": {
            "sources": [{"class_path": "TableSkills", "init_args": {"skills": ["scale"], "n": 60, "seed": 1}}],
            "val_fraction": 0.1,
            "replay": [{"class_path": "TableSkills", "init_args": {"skills": ["lookup"], "n": 16, "seed": 2}}],
            "replay_share": 0.5,
            "window": 4,
            "token_budget": 512,
            "lengths": {"max_length": 256},
        },
    },
    "trainer": {"accelerator": "cpu", "max_steps": 6, "val_check_interval": 4},
    "checkpoint": {"every_n_windows": 2},
}


def small(
    model: Settings | None = None, data: Settings | None = None, trainer: Settings | None = None, **top: Any
) -> Settings:
    """Settings of a run of six windows in which whatever a resume must keep is in use."""
    settings = deepcopy(_SMALL)
    settings["model"]["init_args"].update(model or {})
    settings["data"]["init_args"].update(data or {})
    settings["trainer"].update(trainer or {})
    settings.update(top)
    return settings


def arguments(folder: Path, settings: Settings, resume: Path | None = None) -> list[str]:
    """Arguments of ``lit-align``; the configuration is written into ``folder``."""
    config = folder / f"{hashlib.sha256(repr(settings).encode()).hexdigest()[:12]}.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["fit", "-c", str(config), *(["--ckpt_path", str(resume)] if resume else [])]


class Life:
    """One process of the command, with whatever it starts in a process group of its own, as in a terminal."""

    def __init__(self, folder: Path, settings: Settings, resume: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.before = folder, set(versions(folder))
        self.log = folder / f"stderr-{time.monotonic_ns()}.txt"
        paths = [str(ROOT), str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lit_align", *arguments(folder, settings, resume)],
                cwd=folder, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    @property
    def errors(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def version(self) -> Path | None:
        """The run's folder, once it is there."""
        new = sorted(set(versions(self.folder)) - self.before)
        return new[-1] if new else None

    @property
    def checkpoint(self) -> Path | None:
        path = self.version / "checkpoints" / "last.ckpt" if self.version else None
        return path if path is not None and path.exists() else None

    def wait(self, seconds: float = PATIENCE) -> int:
        return self.process.wait(seconds)

    def wait_until(self, condition: Callable[[], Any]) -> bool:
        """Whether the condition came true while the process lived."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                return bool(condition())
            assert time.monotonic() < deadline, f"nothing happened for {PATIENCE} s:\n{self.errors}"
            time.sleep(0.005)
        return True

    def saves(self, number: int) -> bool:
        """Wait for so many further checkpoints; False if the process ended before."""

        def identity() -> int:
            return self.checkpoint.stat().st_ino if self.checkpoint else 0

        for _ in range(number):
            last = identity()
            if not self.wait_until(lambda last=last: identity() != last):
                return False
        return True

    def interrupt(self) -> None:
        """Ctrl-C: a terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def bury(self) -> None:
        """Leave no process of this life behind."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def life(folder: Path, settings: Settings, resume: Path | None = None) -> Iterator[Life]:
    """Start the command; nothing of it outlives the block."""
    process = Life(folder, settings, resume)
    try:
        yield process
    finally:
        process.bury()


def complete(folder: Path, settings: Settings, resume: Path | None = None) -> Path:
    """Run the command to its end; return the run's folder."""
    with life(folder, settings, resume) as process:
        assert process.wait() == 0, process.errors
        assert process.version is not None
        return process.version


def killed_and_resumed(folder: Path, settings: Settings, kills: int, seed: int) -> Path:
    """A run that is killed at random moments and goes on from its newest checkpoint; the version that ends it."""
    random = Random(seed)
    for _ in range(kills):
        with life(folder, settings, newest_checkpoint(folder)) as process:
            if not process.saves(random.randint(1, 3)):
                return process.version
            process.kill()
    return complete(folder, settings, newest_checkpoint(folder))


def versions(folder: Path) -> list[Path]:
    """Folders of the runs, oldest first."""
    found = (folder / "lightning_logs").glob("*/version_*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("version_")))


def newest_checkpoint(folder: Path) -> Path | None:
    """What one resumes from: the checkpoint of the newest run that has one."""
    saved = [path / "checkpoints" / "last.ckpt" for path in versions(folder)]
    return next((path for path in reversed(saved) if path.exists()), None)


def adapter(version: Path) -> dict[str, bytes]:
    """The files of a finished run's adapter."""
    files = {path.name: path.read_bytes() for path in (version / "adapter").iterdir()}
    assert "adapter_model.safetensors" in files
    return files


def contents(folder: Path) -> Mapping[str, str]:
    """Hash of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
