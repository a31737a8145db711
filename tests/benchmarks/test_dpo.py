"""The pairs and the choice of real tables; and the command itself on a model of one layer."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from tat_qa_tables import table_of, write

from benchmarks.contender import END, ModelShape
from benchmarks.dpo import tables
from benchmarks.dpo.command import made_pairs, main, memory_cases, time_cases
from benchmarks.dpo.pairs import MadePairs
from benchmarks.dpo.tables import ChosenTables, Profile, like_the_file, renumbered
from lit_align.data.windows import Tree
from lit_align.forest import TokenPath

CONFIG = Path(__file__).parents[2] / "configs" / "dpo" / "qwen3-1.7b-tatqa.yaml"

# ------------------------------------------------------------------------------------------------ made pairs


def test_shapes_are_those_of_the_targets() -> None:
    lengths = {
        name: [(len(path.tokens), int((path.classes == 1).sum())) for pair in rows.pairs() for path in pair]
        for name, rows in made_pairs(5120).items()
    }
    assert {name: len(paths) // 2 for name, paths in lengths.items()} == {
        "TAT-QA, one question": 2,
        "TAT-QA, six questions on one table": 6,
        "chat": 2,
    }
    for name, (prompts, answers) in zip(
        lengths, [((500, 700), (3, 15)), ((520, 550), (3, 15)), ((120, 180), (220, 380))], strict=True
    ):
        for length, answer in lengths[name]:
            assert answers[0] <= answer <= answers[1]
            assert prompts[0] <= length - answer <= prompts[1]


def test_pairs_share_their_prompt_and_no_more_without_a_context() -> None:
    rows = MadePairs(count=3, context=0, question=(20, 30), answer=(4, 8), vocabulary=500)
    paths = [path for pair in rows.pairs() for path in pair]
    forest = rows.window().forests[0]
    prompts = sum(int((path.classes == 0).sum()) for path in paths[::2])
    assert len(forest) == prompts + sum(int((path.classes == 1).sum()) for path in paths)
    assert [path.tolist() for path in forest.paths()] == [path.tokens.tolist() for path in paths]
    assert all(path.tokens[-1] == END and (path.tokens[:-1] > 2).all() for path in paths)


def test_every_target_names_a_peer_of_its_case() -> None:
    shape, rows = ModelShape(100), made_pairs(100)
    cases = [*time_cases(shape, rows, rounds=6), *memory_cases(shape, rows)]
    assert all(set(case.targets) <= {peer.name for peer in case.peers} for case in cases)
    assert [next(iter(case.targets.values())) for case in cases] == [0.40, 0.12, 0.66, 0.60, 0.15, 0.60]


# ------------------------------------------------------------------------------------------------ real tables


def test_settings_are_those_of_the_shipped_configuration() -> None:
    data = yaml.safe_load(CONFIG.read_text())["data"]["init_args"]
    source = data["sources"][0]["init_args"]
    assert source["prompt"]["init_args"] == {"max_passage_chars": tables.PROMPT.max_passage_chars}
    assert (data["window"], data["token_budget"]) == (tables.WINDOW, tables.TOKEN_BUDGET)
    assert data["lengths"] == {name: getattr(tables.LENGTHS, name) for name in data["lengths"]}


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> ChosenTables:
    path = write(tmp_path_factory.mktemp("tatqa"), [table_of(number) for number in range(20)])
    return like_the_file(Path(path), "tiny-qwen3", count=10, vocabulary=5120)


def test_chosen_tables_are_like_the_whole_file(chosen: ChosenTables) -> None:
    assert abs(chosen.profile.mean_tokens / chosen.whole.mean_tokens - 1) <= 0.03
    assert abs(chosen.profile.sharing / chosen.whole.sharing - 1) <= 0.03
    assert chosen.profile.sharing > 4
    assert chosen.tables == 10
    assert chosen.whole.pairs > chosen.profile.pairs > 50


def test_both_sides_are_given_the_same_pairs(chosen: ChosenTables) -> None:
    rows = chosen.windows[0]
    forests = rows.window().forests
    ours = sorted(tuple(path.tolist()) for forest in forests for path in forest.paths())
    assert ours == sorted(tuple(path.tokens.tolist()) for pair in rows.pairs() for path in pair)
    assert sum(len(rows.pairs()) for rows in chosen.windows) == chosen.profile.pairs
    assert sum(len(forest) for rows in chosen.windows for forest in rows.window().forests) == chosen.profile.rows


def test_each_pair_has_one_prompt(chosen: ChosenTables) -> None:
    for first, second in chosen.windows[0].pairs():
        prompt = int((first.classes != 1).sum())
        assert np.array_equal(first.tokens[:prompt], second.tokens[:prompt])
        assert first.tokens[-1] == second.tokens[-1] == END


def tree(*answers: list[int]) -> Tree:
    paths = [
        TokenPath(np.array([900, 7, *answer, 50], np.int32), np.array([0, 0, 1, 1], np.uint8), "x")
        for answer in answers
    ]
    return Tree("table", tuple(paths), 6)


def test_tokens_are_renumbered_one_to_one_and_end_in_the_models_end() -> None:
    (few,) = renumbered([tree([11], [12])], vocabulary=7)
    assert [path.tokens.tolist() for path in few.paths] == [[6, 3, 4, 1], [6, 3, 5, 1]]


def test_more_tokens_than_the_model_has_are_refused() -> None:
    with pytest.raises(SystemExit, match="the tables have 4 tokens, a model with 6 is too small: raise --vocabulary"):
        renumbered([tree([11], [12])], vocabulary=6)


def test_tables_unlike_their_file_are_refused() -> None:
    long, short = tree([11], [12]), tree([13], [14])
    whole = Profile.of([long, long, short, short])
    assert (whole.pairs, whole.mean_tokens, whole.sharing) == (4, 4.0, 8 * 4 / 24)
    far = {str(number): [Tree(str(number), long.paths, size)] for number, size in enumerate((6, 12))}
    with pytest.raises(SystemExit, match="none of 10000 choices of 1 from 2 tables is like the whole file"):
        tables._choose(far, Profile.of(tree for trees in far.values() for tree in trees), 1)


# ------------------------------------------------------------------------------------------------ the command


def test_a_missing_peer_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit, match=r"TRL, which is not installed: pip install -e '\.\[benchmark\]'$"):
        main([])


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--rounds", "5"], "--rounds must be at least 6 .* got 5"), (["--part", "0"], "--part must be .* got 0.0")],
)
def test_a_wrong_option_is_named(words: list[str], message: str) -> None:
    pytest.importorskip("trl")
    with pytest.raises(SystemExit, match=message):
        main(words)


@pytest.mark.slow
def test_the_command_writes_its_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    monkeypatch.setattr(tables, "LIKE", 1.0)  # one table, for time, is not like three
    file = write(tmp_path, [table_of(number) for number in range(3)])
    small = "--parts time --rounds 6 --part 0.05 --hidden 32 --layers 1 --vocabulary 512"
    real = f"--tatqa {file} --tokenizer tiny-qwen3 --tables 1 --table-passes 6"
    main([*small.split(), *real.split(), "--output", str(tmp_path)])
    text = (tmp_path / "dpo_time.md").read_text()
    assert capsys.readouterr().out == text + "\n"
    assert "none is judged" in text
    content = json.loads((tmp_path / "dpo_time.json").read_text())
    cases = [*made_pairs(512), "1 real TAT-QA tables, window by window"]
    assert list(dict.fromkeys(row["case"] for row in content["time"])) == cases
    assert len(content["time"]) == 4 * 3
    for row in content["time"]:
        assert len(row["ours"]) == len(row["theirs"]) == row["ratio"]["rounds"] >= 6
        assert row["agreement"]["loss"] < 1e-5
        assert row["agreement"]["gradient"] < 3e-5
        assert f"| {row['case']} | {row['peer']} |" in text
    assert "gradient_checkpointing=True" in content["settings"]["TRL DPOTrainer"]
    assert "1 tables of tatqa_dataset_dev.json" in content["settings"]["real tables"]


@pytest.mark.slow
def test_memory_is_measured_of_sides_that_agree() -> None:
    pytest.importorskip("trl")
    _, case, _ = memory_cases(ModelShape(512, hidden=32, layers=1), made_pairs(512, part=0.2))
    (row,) = replace(case, peers=case.peers[:1]).memory(too_large="")
    assert (row.case, row.peer, row.unit, row.target) == (case.name, "TRL DPOTrainer, no gc", "MB", 0.15)
    assert row.agreement.loss < 1e-5
    assert 0 < row.ours[0] < row.theirs[0]
