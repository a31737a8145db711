import re
from collections.abc import Callable
from itertools import islice
from random import Random

import pytest

from lit_align.data.sources.finance_tables import draw_table, split_of
from lit_align.data.sources.small_talk import REPLIES
from lit_align.data.sources.table_skills import (
    ALL_SKILLS,
    OLD_SKILLS,
    TableSkillItems,
    TableSkills,
    TableTask,
    as_dialogue,
    ask,
    draw_task,
)
from lit_align.types import Message

ABOUT_TABLES = [skill for skill in ALL_SKILLS if skill != "chat"]


def read_table(prompt: str) -> tuple[str, dict[tuple[str, str], int]]:
    header, *_ = prompt.split("\n")
    cells = re.findall(r"(?<=\| )(\w+) (\d{4}) (\d\d)(?= \|)", prompt)
    return header.removeprefix("Table in "), {(metric, year): int(value) for metric, year, value in cells}


def recomputed_answer(skill: str, prompt: str) -> str:
    scale, cells = read_table(prompt)
    question = prompt.split("\n")[-1]
    metrics = {metric for metric, _ in cells}
    named = [word for word in re.findall(r"\w+", question) if word in metrics]
    years = re.findall(r"\d{4}", question)
    keys = [(metric, year) for metric in named for year in years]
    seen = "See " + ", ".join(f"{metric} {year} {cells[metric, year]}" for metric, year in keys)
    first, last = keys[0], keys[-1]
    larger = max(keys, key=lambda key: cells[key])
    return {
        "lookup": f"{seen}.",
        "scale": f"{seen} in {scale}.",
        "rise": f"{seen}, so it {'rose' if cells[last] > cells[first] else 'fell'}.",
        "higher": f"{seen}, so {larger[1]}.",
        "compare": f"{seen}, so {larger[0]}.",
    }[skill]


@pytest.mark.parametrize("skill", ABOUT_TABLES)
def test_answers_follow_from_the_table_in_the_prompt(skill: str) -> None:
    for item in TableSkillItems(skills=[skill], n_per_skill=200).items():
        assert item.answer == recomputed_answer(skill, item.prompt[0].content)


@pytest.mark.parametrize("skill", ABOUT_TABLES)
def test_answers_of_training_follow_from_the_table_too(skill: str) -> None:
    for conversation in TableSkills(skills=[skill], n=200).conversations():
        user, assistant = conversation.messages
        assert assistant.content == recomputed_answer(skill, user.content)


def test_small_talk_repeats_the_greeting_the_name_and_the_city() -> None:
    for item in TableSkillItems(skills=["chat"], n_per_skill=200).items():
        said = item.prompt[0].content.split("\n")[-1]
        parts = re.fullmatch(r"(\w+), I am (\w+) from (\w+)\. (.*)", said)
        assert parts is not None
        greeting, name, city, question = parts.groups()
        assert item.answer == f"{greeting}, {name} from {city}. {REPLIES[question]}"


def test_half_of_the_small_talk_has_no_table() -> None:
    items = TableSkillItems(skills=["chat"], n_per_skill=400).items()
    assert 0.4 < sum("Table" not in item.prompt[0].content for item in items) / len(items) < 0.6


def test_no_evaluation_table_can_be_a_training_table() -> None:
    rng = Random(0)
    drawn = {split: [draw_table(rng, split).text() for _ in range(200)] for split in ("train", "eval")}
    assert all(split_of(text) == split for split, texts in drawn.items() for text in texts)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_the_sources_show_is_of_their_own_split(seed: int) -> None:
    trained = [c.messages[0].content for c in TableSkills(skills=list(ALL_SKILLS), n=600, seed=seed).conversations()]
    asked = [item.prompt[0].content for item in TableSkillItems(n_per_skill=100, seed=seed).items()]
    for split, prompts in (("train", trained), ("eval", asked)):
        for prompt in prompts:
            *table, question = prompt.split("\n")
            assert not table or split_of("\n".join(table)) == split
            assert " I am " not in question or split_of(question) == split


def test_about_one_text_in_eight_is_for_evaluation() -> None:
    texts = [str(i) for i in range(4000)]
    assert sum(split_of(text) == "eval" for text in texts) / len(texts) == pytest.approx(1 / 8, abs=0.02)


def test_the_same_fields_give_the_same_rows_and_another_seed_gives_others() -> None:
    assert TableSkills(seed=3).conversations() == TableSkills(seed=3).conversations()
    assert TableSkillItems(seed=3).items() == TableSkillItems(seed=3).items()
    assert TableSkills(seed=3).conversations() != TableSkills(seed=4).conversations()
    assert TableSkillItems(seed=3).items() != TableSkillItems(seed=4).items()


def test_a_skill_draws_the_same_rows_whatever_stands_beside_it() -> None:
    alone = TableSkillItems(skills=["rise"], n_per_skill=20).items()
    beside = TableSkillItems(skills=["lookup", "rise"], n_per_skill=20).items()
    assert beside[20:] == alone


def test_skills_take_turns_and_ids_are_unique() -> None:
    conversations = TableSkills(n=50).conversations()
    assert [c.id.split("/")[2] for c in conversations[:5]] == list(OLD_SKILLS)
    assert len({c.id for c in conversations}) == 50
    items = TableSkillItems(n_per_skill=30).items()
    assert len({item.id for item in items}) == len(items) == 30 * len(ALL_SKILLS)


def test_a_group_and_a_cluster_are_one_table() -> None:
    for conversation in TableSkills(n=100).conversations():
        assert (conversation.group == "") == ("Table" not in conversation.messages[0].content)
    clusters: dict[str, str] = {}
    for item in TableSkillItems(n_per_skill=100).items():
        table = item.prompt[0].content.rpartition("\n")[0] or item.prompt[0].content
        assert clusters.setdefault(item.cluster, table) == table


@pytest.mark.parametrize(
    "read",
    [TableSkills(skills=["lookup", "juggle"]).conversations, TableSkillItems(skills=["lookup", "juggle"]).items],
)
def test_an_unknown_skill_is_named_with_the_allowed_ones(read: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"'juggle'; allowed: lookup, rise, higher, compare, chat, scale"):
        read()


@pytest.mark.parametrize(
    "read",
    [
        TableSkills(skills=[]).conversations,
        TableSkills(n=0).conversations,
        TableSkillItems(skills=[]).items,
        TableSkillItems(n_per_skill=0).items,
    ],
)
def test_an_empty_request_is_refused(read: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"table_skills: (skills is empty|n\w* must be at least 1)"):
        read()


def test_a_dialogue_shows_its_table_once() -> None:
    rng = Random(5)
    table = draw_table(rng, "train", (2,))
    tasks = [ask(skill, table, "train", rng) for skill in ALL_SKILLS]
    messages = as_dialogue(tasks)
    assert [message.role for message in messages] == ["user", "assistant"] * len(tasks)
    assert "\n".join(message.content for message in messages).count(table.text()) == 1
    assert [message.content for message in messages[1::2]] == [task.answer for task in tasks]


def test_a_dialogue_about_two_tables_is_refused() -> None:
    rng = Random(5)
    with pytest.raises(ValueError, match="about one table, got 2"):
        as_dialogue([draw_task("lookup", "train", rng), draw_task("lookup", "train", rng)])


def test_a_task_without_a_table_is_just_its_question() -> None:
    task = TableTask(None, "Who are you?", "I am a small model.")
    assert as_dialogue([task]) == (Message("user", "Who are you?"), Message("assistant", "I am a small model."))


def test_no_number_occurs_twice_in_a_table() -> None:
    rng = Random(1)
    for table in islice((draw_table(rng, "eval") for _ in iter(int, 1)), 100):
        numbers = [number for row in table.values for number in row]
        assert len(set(numbers)) == len(numbers)
        assert all(10 <= number <= 99 for number in numbers)
