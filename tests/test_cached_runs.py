"""Runs that share a cache of the reference: nothing is computed twice, and the numbers are those without one."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from command import Settings, adapter, complete, killed_and_resumed, life, versions
from in_process import fit, shown_line
from test_preference_runs import TWO, _settings

from lit_align.models.logp_store import DEFAULT_FOLDER, describe, stored_files
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference


def cached(**options: Any) -> Settings:
    return {"reference": {"class_path": "CachedReference", "init_args": options}}


def losses(version: Path) -> list[float]:
    with (version / "metrics.csv").open(encoding="utf-8") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def test_a_second_run_of_another_loss_runs_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    computed: list[int] = []
    target_logps = BaseReference.target_logps

    def counted(self: BaseReference, policy: Policy, forest: Any) -> Any:
        computed.append(len(forest))
        return target_logps(self, policy, forest)

    monkeypatch.setattr(BaseReference, "target_logps", counted)
    no_bar = {"enable_progress_bar": False}
    assert fit(_settings(tmp_path, max_steps=5, **no_bar)) == 0
    live, _ = len(computed), computed.clear()
    assert fit(_settings(tmp_path, cached(), max_steps=5, **no_bar)) == 0
    filled, _ = len(computed), computed.clear()
    assert 1 < filled < live  # the trial at the start runs it too, and keeps nothing
    (path,) = stored_files(Path(DEFAULT_FOLDER))
    assert describe(path).examples > 20
    other = {**cached(), "loss": {"class_path": "IPOLoss", "init_args": {"beta": 0.3}}, "lora": {"rank": 2, "alpha": 4}}
    settings = _settings(tmp_path, other, {"token_budget": 400, "window": 3, "seed": 5}, max_steps=7, **no_bar)
    capsys.readouterr()
    assert fit({**settings, "seed_everything": 9}) == 0
    assert len(computed) == 1, "the trial at the start"
    assert re.search(rf"reference cache: \d+ hits, 0 misses in {path}", capsys.readouterr().err)
    one, two, _ = versions(tmp_path)
    assert len(losses(one)) == 5
    assert losses(one) == pytest.approx(losses(two), abs=1e-5)


def test_options_are_set_on_the_command_line_and_what_cannot_be_cached_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = _settings(tmp_path, max_steps=1)
    words = ["--model.reference=CachedReference", "--model.reference.fill=ahead", "--model.reference.folder=mine"]
    of = ["--model.reference.of=FrozenAdapterReference", "--model.reference.of.path=nowhere"]
    assert fit(settings, *words, *of) == 1
    assert "adapter nowhere: no file" in shown_line(capsys)
    assert fit(settings, *words, "--model.reference.of=CachedReference") == 2
    assert "of must not be a cache itself" in shown_line(capsys)
    assert fit(settings, *words, "--model.reference.fill=never") == 2
    assert "`model.reference.fill`: must be one of 'ahead', 'lazily', got 'never'" in shown_line(capsys)
    assert not Path("mine").exists()


@pytest.mark.slow
@pytest.mark.parametrize("fill", ["lazily", "ahead"])
def test_kills_at_random_moments_leave_the_bytes_of_an_undisturbed_run(tmp_path: Path, fill: str) -> None:
    model = {**cached(fill=fill), "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}
    settings = _settings(tmp_path, model, max_steps=7)  # into the second epoch
    expected = adapter(complete(tmp_path / "undisturbed", settings))
    assert adapter(killed_and_resumed(tmp_path / "chain", settings, 2, seed=1)) == expected


@pytest.mark.slow
def test_two_ranks_and_two_runs_fill_one_cache_ahead(tmp_path: Path) -> None:
    model = cached(fill="ahead", folder=str(tmp_path / "cache"))
    settings = [_settings(tmp_path, model, max_steps=6, **trainer) for trainer in (TWO, {})]
    with life(tmp_path / "two", settings[0]) as two, life(tmp_path / "one", settings[1]) as one:
        for process in (two, one):
            assert process.wait() == 0, process.errors
            assert re.search(r"reference cache: \d+ hits, 0 misses in", process.errors), process.errors
    (path,) = stored_files(tmp_path / "cache")
    with life(tmp_path / "three", settings[1]) as process:
        assert process.wait() == 0, process.errors
        filled = f"reference cache filled: 0 answers computed, {describe(path).examples} were there"
        assert filled in process.errors
