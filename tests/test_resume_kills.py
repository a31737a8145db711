"""A run that is killed again and again ends with the bytes of the run that nobody disturbed."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import pytest
import torch
from command import Settings, adapter, complete, contents, life, newest_checkpoint, small, versions

pytestmark = pytest.mark.slow

KILLS = 8  # it held with twenty, at three times the time
WINDOWS = 42


def _settings() -> Settings:
    # Dropout, worker processes, replay, validation between windows, nine windows an epoch, a checkpoint each window.
    source = {"class_path": "TableSkills", "init_args": {"skills": ["scale"], "n": 40, "seed": 1}}
    return small(
        data={"workers": 2, "sources": [source]},
        trainer={"max_steps": WINDOWS, "val_check_interval": 5},
        checkpoint={"every_n_windows": 1},
    )


def _step(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def test_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path) -> None:
    settings, chain = _settings(), tmp_path / "chain"
    with life(tmp_path / "undisturbed", settings) as process:
        started = time.monotonic()
        assert process.saves(1), process.errors
        first_save = time.monotonic()
        assert process.wait() == 0, process.errors
        startup, pace = first_save - started, (time.monotonic() - first_save) / WINDOWS
        assert process.version is not None
        expected = adapter(process.version)
    random = Random(0)
    kills: list[str] = []
    frozen: dict[Path, object] = {}
    while len(kills) < KILLS:
        resume = newest_checkpoint(chain)
        reached = _step(resume) if resume else 0
        with life(chain, settings, resume) as process:
            if len(kills) % 4 == 0:
                time.sleep(random.uniform(0.05, 1.0) * startup)
                moment = "start-up"
            else:
                assert process.saves(random.choice((1, 1, 1, 2))), f"kill {len(kills)}: {process.errors}"
                time.sleep(random.uniform(0.0, 1.5) * pace)
                moment = "windows"
            assert process.process.poll() is None, f"ended after {len(kills)} kills: {process.errors}"
            process.kill()
        kills.append(f"{moment} {reached}->{_step(newest) if (newest := newest_checkpoint(chain)) else 0}")
        for version, before in frozen.items():
            assert contents(version) == before, f"{version} was changed by a resume"
        frozen = {version: contents(version) for version in versions(chain)}
    resume = newest_checkpoint(chain)
    last = complete(chain, settings, resume)
    print(f"start-up {startup:.1f} s, window {pace:.2f} s, kills: {', '.join(kills)}")  # noqa: T201  the measured numbers, shown with -s
    for version, before in frozen.items():
        assert contents(version) == before, f"{version} was changed by a resume"
    assert adapter(last) == expected
    assert not [path for path in chain.rglob("*.part") if not path.name.startswith(".")]
