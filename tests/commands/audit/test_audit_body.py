"""The whole measure on small data with planted faults: whole files, a mix that is not met, missing packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lit_align.commands.audit import audit, body
from lit_align.data.audit.settings import AuditSettings
from lit_align.data.lengths import Lengths
from lit_align.data.mix import Mix
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sources.scale_answers import ScalePairs
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.staged import StagedPreferences, StagePairs
from lit_align.modules.dpo import DPOModule

BY_FORM = {"max_longer": 1.0, "max_surface_accuracy": 1.0}


def _audit(limits: dict[str, Any], **options: Any) -> body.Report:
    sources = [ScalePairs(n=30), SkillPairs(skills=["rise"], n=30)]
    options = {"window": 4, "token_budget": 1024, "lengths": Lengths(max_length=256), **options}
    data = PreferenceDataModule(sources=sources, **options)
    settings = AuditSettings(**{**BY_FORM, **limits})
    return audit("run", DPOModule("tiny-qwen3"), data, [], settings, "out", cuda=False)


def test_clean_pairs_hold_and_both_files_say_so() -> None:
    report = _audit({})
    assert not report.measured.failed
    assert sorted(path.name for path in Path("out").iterdir()) == ["audit.html", "audit.json"]
    held = json.loads(Path("out/audit.json").read_text(encoding="utf-8"))
    assert set(held["tables"]) == {
        "rows", "mix", "lengths", "cuts", "repeats", "length bias", "told apart without the prompt", "near-repeats",
        "languages", "personal data", "an epoch", "memory",
    }  # fmt: skip
    [memory] = held["tables"]["memory"]["rows"]
    assert memory["largest forest"] == 1024
    assert memory["together"] > memory["activations"] > 0


def test_a_mix_that_is_not_met_fails_with_how_far_and_all_else_is_measured() -> None:
    report = _audit({}, mix=Mix({"scale_answers": 0.5, "skill_pairs": 0.5}, size=200))
    [failed] = report.measured.failed
    assert failed.limit == "data.mix"
    assert "140 fewer than `size` = 200" in failed.advice
    assert {"memory", "languages"} <= {table.name for table in report.measured.tables}


def test_an_estimate_over_the_memory_fails() -> None:
    [failed] = _audit({"max_memory_gb": 0.001}).measured.failed
    assert failed.limit == "audit.max_memory_gb"
    assert "activation_checkpointing" in failed.advice


def test_limits_of_the_data_are_lifted_to_measure_and_held_to_afterwards() -> None:
    report = _audit({}, lengths=Lengths(max_length=70, max_dropped=0.1))
    failed = {check.limit: check for check in report.measured.failed}
    assert set(failed) == {"data.lengths.max_dropped"}
    assert failed["data.lengths.max_dropped"].bound == 0.1


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    _audit({})
    before = Path("out/audit.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        _audit({})
    assert Path("out/audit.json").read_bytes() == before
    assert sorted(path.name for path in Path("out").iterdir()) == ["audit.html", "audit.json"]


def test_a_missing_package_is_named_with_its_extra_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "find_spec", lambda name: None if name == "datasketch" else True)
    with pytest.raises(ImportError, match=r'needs datasketch: pip install "lit_align\[audit\]"'):
        _audit({})
    assert not Path("out").exists()


def test_stages_are_measured_by_stage_and_source() -> None:
    stages = [
        StagePairs("first", [ScalePairs(n=24)], epochs=1),
        StagePairs(
            "second",
            [ScalePairs(n=24), SkillPairs(["rise"], n=40)],
            Mix({"scale_answers": 0.5, "skill_pairs": 0.5}),
            windows=9,
        ),
    ]
    data = StagedPreferences(
        stages=stages, window=4, token_budget=1024, lengths=Lengths(max_length=256), bad_rows="drop"
    )
    report = audit("run", DPOModule("tiny-qwen3"), data, [], AuditSettings(**BY_FORM), "out", cuda=False)
    assert not report.measured.failed
    tables = {table.name: table.records() for table in report.measured.tables}
    assert [row["part"] for row in tables["rows"]] == ["first/training", "second/training", "second/training"]
    repeats = {row["source"]: (row["repeats"], row["in another source"]) for row in tables["repeats"]}
    assert repeats["second/scale_answers"] == (0, 24)  # of the first stage: meant
    asked = {row["source"]: row["asked for"] for row in tables["mix"]}
    assert asked["first/scale_answers"] == ""
    assert asked["second/skill_pairs/rise"] == "50.0% of the examples (skill_pairs)"
    [epoch] = tables["an epoch"]
    assert epoch["windows"] == 6 + 9


def test_data_that_are_read_while_training_are_refused() -> None:
    with pytest.raises(TypeError, match="has no end that an audit could count to: give its sources to SFTDataModule"):
        audit("run", DPOModule("tiny-qwen3"), object(), [], AuditSettings(), "out", cuda=False)
