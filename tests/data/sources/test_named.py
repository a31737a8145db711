from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_align.data.mix import Mix
from lit_align.data.preference import PreferenceDataModule
from lit_align.data.sft import SFTDataModule
from lit_align.data.sources.named import NamedConversations, NamedPairs
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.data.sources.skill_pairs import SkillPairs
from lit_align.data.sources.t_wix import TWix
from lit_align.data.sources.table_skills import TableSkills


def test_only_the_names_change() -> None:
    pairs, talks = SkillPairs(["rise"], n=4), TableSkills(n=4)
    named, spoken = NamedPairs("finance", pairs), NamedConversations("chat", talks)
    for found, plain, name in (
        (named.pairs(lambda _: True), pairs.pairs(lambda _: True), "finance/skill_pairs/rise"),
        (spoken.conversations(), talks.conversations(), "chat/table_skills"),
    ):
        assert {one.source for one in found} == {name}
        assert [(one.id, one.group) for one in found] == [(one.id, one.group) for one in plain]
    assert [one.gold for one in named.prompts()] == [one.gold for one in pairs.prompts()]
    assert {one.source for one in spoken.prompts()} == {"chat/table_skills"}


def test_two_files_of_one_name_are_mixed_under_names_of_their_own() -> None:
    for folder, number in (("reddit", 20), ("finance", 6)):
        Path(folder).mkdir()
        rows = [{"prompt": f"{folder} {i}?", "chosen": "yes", "rejected": "no"} for i in range(number)]
        text = "".join(json.dumps(row) + "\n" for row in rows) + '{"prompt": "broken"}\n'
        Path(folder, "train.jsonl").write_text(text, encoding="utf-8")
    sources = [NamedPairs(name, PreferenceFile(f"{name}/train.jsonl")) for name in ("reddit", "finance")]
    data = PreferenceDataModule(sources=[*sources], mix=Mix({"reddit": 2, "finance": 1}), bad_rows="drop")
    data.trainer = SimpleNamespace(global_step=0, global_rank=0, world_size=1)  # type: ignore[assignment]
    data.setup("fit")
    assert set(data.source_names) == {"reddit/train.jsonl", "finance/train.jsonl"}
    assert sum(plain.name.startswith("train.jsonl") for plain in data._trained) == len(data._trained) == 18


def test_a_source_that_draws_by_its_own_names_draws_the_same() -> None:
    rows = [
        {
            "subset": "reasoning" if i % 4 == 0 else "general",
            "messages": [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "yes"}],
        }
        for i in range(40)
    ]
    Path("twix.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = TWix("twix.jsonl", subset="both", reasoning_ratio=0.5, sample_ratio=0.4)
    found = []
    for one in (source, NamedConversations("wix", source)):
        data = SFTDataModule(sources=[one])
        data.setup("fit")
        found.append([tree.name for tree in data._trained])
    assert found[0] == found[1]
    assert len(found[0]) == 16


@pytest.mark.parametrize("name", ["", " ", "a/b"])
def test_a_name_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a source must not be blank or hold a `/`"):
        NamedPairs(name, SkillPairs())
