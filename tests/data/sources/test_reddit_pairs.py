"""Pairs of comments obey every rule or are not made; the recipe's pairs break the rules that the recipe breaks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lit_align.data.mixture import is_held_out
from lit_align.data.sources.reddit_finance import RedditFinance, read_posts
from lit_align.data.sources.reddit_pairs import ByRank, ByRatio, RedditFinancePairs
from lit_align.data.sources.reddit_recipe import RecipeRedditPairs

LONG = "a comment of some length that nobody would leave out "


def everything(group: str) -> bool:
    del group
    return True


def row(post: str = "p", score: float = 0.5, body: str = "", **other: Any) -> dict[str, Any]:
    return {
        "id": post, "title": f"Title {post}", "selftext": f"I hold bonds. Sell {post}?", "z_score": 3.1,
        "normalized_score": 0.9, "subreddit": "investing", "body": body or f"{LONG}{score}",
        "comment_normalized_score": score, "combined_score": 0.9 + score, **other,
    }  # fmt: skip


@pytest.fixture
def file_of(tmp_path: Path) -> Callable[..., str]:
    def write(*rows: dict[str, Any]) -> str:
        path = tmp_path / "top.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return str(path)

    return write


def said(source: RedditFinancePairs | RecipeRedditPairs) -> list[tuple[str, str, str]]:
    return [(one.id, one.chosen, one.rejected) for one in source.pairs(everything)]


def scores(source: RedditFinancePairs | RecipeRedditPairs) -> list[tuple[str, float, float]]:
    return [(name, float(chosen.split()[-1]), float(rejected.split()[-1])) for name, chosen, rejected in said(source)]


# --- Each trap of the set, by its name in reference/datasets.md, 2.2 ------------------------------------------------


def test_rows_of_a_post_are_not_adjacent(file_of: Callable[..., str]) -> None:
    path = file_of(row("p", 0.9), row("q", 0.8), row("r", 0.7), row("q", 0.2), row("p", 0.3))
    assert scores(RedditFinancePairs(path)) == [("p/1-2", 0.9, 0.3), ("q/1-2", 0.8, 0.2)]


def test_descending_order_is_not_relied_upon(file_of: Callable[..., str]) -> None:
    assert scores(RedditFinancePairs(file_of(row(score=0.2), row(score=0.9)))) == [("p/1-2", 0.9, 0.2)]


def test_a_post_with_one_comment_has_no_pair(file_of: Callable[..., str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = file_of(row("p", 0.9), row("p", 0.2), row("q", 0.8), row("r", 0.5), row("r", 0.5, LONG * 2))
    assert scores(RedditFinancePairs(path)) == [("p/1-2", 0.9, 0.2)]
    [told] = caplog.messages
    assert "1 pairs of 1 of 3 posts (accepted: 33.3%), 5 rows" in told
    assert "1 fewer than two comments left, 1 all comments liked equally" in told


def test_a_gap_means_other_votes_in_another_subreddit_so_only_rank_and_ratio_count(
    file_of: Callable[..., str],
) -> None:
    # The same votes in a subreddit a hundred times as large.
    small, large = (row("s", 0.6), row("s", 0.3)), (row("l", 0.006), row("l", 0.003))
    path = file_of(*small, *large)
    for rule in (ByRank(), ByRatio(1.9)):
        assert scores(RedditFinancePairs(path, rule=rule)) == [("s/1-2", 0.6, 0.3), ("l/1-2", 0.006, 0.003)]


def test_siblings_that_are_all_well_liked_are_no_pair_and_no_fallback_makes_them_one(
    file_of: Callable[..., str],
) -> None:
    path = file_of(row("near", 0.5), row("near", 0.45), row("near", 0.4), row("far", 0.9), row("far", 0.1))
    assert scores(RedditFinancePairs(path)) == [("far/1-2", 0.9, 0.1)]
    unlike = file_of(row("p", 0.9, f"{LONG * 3}0.9"), row("p", 0.1), row("q", 0.9), row("q", 0.2))
    assert scores(RedditFinancePairs(unlike)) == [("q/1-2", 0.9, 0.2)]


def test_edits_links_and_markdown_are_left_out_by_the_filters(file_of: Callable[..., str]) -> None:
    bad = [f"{LONG} EDIT: thanks!", f"{LONG} I am a bot, beep", "| 1 | 2 |" * 12]
    bad += [f"{LONG} http://a.b https://www.c.d www.e.f", "short"]
    for body in bad:
        path = file_of(row("p", 0.9, body), row("p", 0.8, f"{LONG} 0.8"), row("p", 0.2, f"{LONG} 0.2"))
        assert scores(RedditFinancePairs(path)) == [("p/1-2", 0.8, 0.2)], body
    two = f"{LONG} http://www.a.b and https://www.c.d"
    assert len(said(RedditFinancePairs(file_of(row(score=0.9, body=two), row(score=0.2))))) == 1


def test_a_split_is_one_by_post_ids(file_of: Callable[..., str]) -> None:
    path = file_of(*(row(f"p{i}", s) for s in (0.9, 0.5, 0.1) for i in range(20)))
    source = RedditFinancePairs(path, pairs_per_post=3)
    sides = [source.pairs(lambda group, held=held: is_held_out(group, 0.3, 0) == held) for held in (True, False)]
    groups = [{pair.group for pair in side} for side in sides]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {f"p{i}" for i in range(20)}
    assert sum(map(len, sides)) == 60
    assert all(pair.id.split("/")[0] == pair.group for side in sides for pair in side)


def test_a_comment_that_stands_twice_is_no_pair_with_itself(file_of: Callable[..., str]) -> None:
    path = file_of(row("p", 0.9, LONG), row("p", 0.1, LONG), row("q", 0.9), row("q", 0.1))
    assert [name for name, *_ in said(RedditFinancePairs(path))] == ["q/1-2"]


# --- Options --------------------------------------------------------------------------------------------------------


def test_several_pairs_a_post_are_those_with_the_widest_gaps(file_of: Callable[..., str]) -> None:
    path = file_of(row(score=0.8), row(score=0.4), row(score=0.1))
    gaps = [("p/1-3", 0.8, 0.1), ("p/2-3", 0.4, 0.1), ("p/1-2", 0.8, 0.4)]
    for most in (1, 2, 3, 9):
        assert scores(RedditFinancePairs(path, pairs_per_post=most)) == gaps[:most]
    assert scores(RedditFinancePairs(path, rule=ByRank(2), pairs_per_post=3)) == gaps[:1]


def test_of_several_pairs_only_those_of_like_length_are_made(file_of: Callable[..., str]) -> None:
    path = file_of(row(score=0.8), row(score=0.4), row(score=0.1, body=f"{LONG * 3}0.1"))
    assert scores(RedditFinancePairs(path, pairs_per_post=3)) == [("p/1-2", 0.8, 0.4)]
    assert len(said(RedditFinancePairs(path, pairs_per_post=3, max_length_ratio=4))) == 3


def test_comments_with_equal_scores_are_never_a_pair(file_of: Callable[..., str]) -> None:
    path = file_of(row(score=0.5), row(score=0.2, body=LONG + "x 0.2"), row(score=0.2, body=LONG + "y 0.2"))
    for rule in (ByRank(), ByRatio(1.1)):
        assert [name for name, *_ in said(RedditFinancePairs(path, rule=rule, pairs_per_post=9))] == ["p/1-2", "p/1-3"]


def test_subreddits_are_chosen_by_name(file_of: Callable[..., str]) -> None:
    path = file_of(*(row(sub, s, subreddit=sub) for sub in ("investing", "fatFIRE") for s in (0.9, 0.1)))
    assert [name for name, *_ in said(RedditFinancePairs(path, subreddits=["fatfire"]))] == ["fatFIRE/1-2"]
    assert [name for name, *_ in said(RedditFinancePairs(path, without_subreddits=["FATFIRE"]))] == ["investing/1-2"]
    with pytest.raises(ValueError, match="no row of 'fatfires'; did you mean 'fatfire'"):
        said(RedditFinancePairs(path, without_subreddits=["fatfires"]))


def test_the_prompt_is_the_benchmark_s_and_a_long_post_loses_its_middle(file_of: Callable[..., str]) -> None:
    text = "The case is this. " + "And so on and on. " * 50 + "Should I sell now?"
    path = file_of(row(score=0.9, selftext=text), row(score=0.1, selftext=text))
    [post] = read_posts(path)
    [whole], [cut] = (RedditFinancePairs(path, max_post_chars=n).pairs(everything) for n in (None, 100))
    assert whole.prompt == RedditFinance(path).prompt(post)
    body = cut.prompt[0].content.split("\n\n")[2]
    assert body.startswith("The case is this. And so on")
    assert body.endswith("[…]\non and on. Should I sell now?")
    assert len(body) <= 100


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pairs_per_post": 0}, "pairs_per_post: must be at least 1"),
        ({"max_length_ratio": 0.5}, "max_length_ratio: must be at least 1"),
        ({"min_letters": 1.5}, r"min_letters: must be in \[0, 1\]"),
        ({"max_comment_chars": 10}, "max_comment_chars: must be at least min_comment_chars"),
        ({"max_post_chars": 0}, "max_post_chars: must be at least 40"),
        ({"unwanted": [" "]}, "unwanted"),
        ({"instruction": ""}, "instruction: must not be blank"),
    ],
)
def test_values_out_of_their_range_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RedditFinancePairs(**options)


@pytest.mark.parametrize("rule", [lambda: ByRank(0), lambda: ByRatio(1.0), lambda: ByRatio(float("nan"))])
def test_a_rule_that_would_pair_equals_is_refused(rule: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"By\w+\.min_\w+: must be"):
        rule()


# --- Bad input ------------------------------------------------------------------------------------------------------


def test_a_post_whose_comments_are_all_equal_yields_nothing_and_says_so(file_of: Callable[..., str]) -> None:
    path = file_of(row(score=0.5, body=LONG + "x"), row(score=0.5, body=LONG + "y"))
    for source in (RedditFinancePairs(path), RedditFinancePairs(path, rule=ByRank())):
        with pytest.raises(ValueError, match=r"0 pairs of 0 of 1 posts .*1 all comments liked equally.*loosen the rul"):
            source.pairs(everything)


def test_a_line_cut_off_latin_1_and_bad_cells_are_named(file_of: Callable[..., str]) -> None:
    path = Path(file_of(row(score=0.9), row(score=0.1)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"top\.jsonl, line 2, column \d+: broken JSON"):
        RedditFinancePairs(str(path)).pairs(everything)
    path.write_bytes(whole + whole.replace(b"bonds", "Gebühr".encode("latin-1")))
    with pytest.raises(ValueError, match=r"top\.jsonl, line 3: not UTF-8 .*Latin-1"):
        RedditFinancePairs(str(path)).pairs(everything)
    for column, cell in (("body", None), ("body", 3), ("id", None), ("comment_normalized_score", -0.1)):
        path = Path(file_of(row(score=0.9), row(score=0.1), {**row(score=0.4), column: cell}))
        refused: list[str] = []
        with pytest.raises(ValueError, match=rf"top\.jsonl:3: {column}: must be"):
            RedditFinancePairs(str(path)).pairs(everything)
        kept = RedditFinancePairs(str(path)).usable(everything, lambda _, error: refused.append(str(error)))  # noqa: B023
        assert [pair.id for pair in kept] == ["p/1-2"]
        assert len(refused) == 1


def test_two_rows_of_a_post_that_disagree_are_refused(file_of: Callable[..., str]) -> None:
    path = file_of(row(score=0.9), row(score=0.1), row(score=0.3, title="Another"))
    with pytest.raises(ValueError, match=r"top\.jsonl:3: id: post p has another title or text"):
        RedditFinancePairs(path).pairs(everything)


def test_refused_rows_do_not_shift_the_texts_of_later_ones(file_of: Callable[..., str]) -> None:
    path = file_of({**row("a"), "body": None}, row("p", 0.9), {**row("b"), "selftext": "[deleted]"}, row("p", 0.1))
    [pair] = RedditFinancePairs(path).usable(everything, lambda *_: None)
    assert (pair.chosen, pair.rejected) == (f"{LONG}0.9", f"{LONG}0.1")


# --- The recipe -----------------------------------------------------------------------------------------------------


def test_the_recipe_falls_back_to_the_last_comment(file_of: Callable[..., str]) -> None:
    path = file_of(
        row("gap", 0.9), row("gap", 0.85), row("gap", 0.7), row("gap", 0.1),
        row("none", 0.5), row("none", 0.45), row("none", 0.44),
        row("unlike", 0.9), row("unlike", 0.4, f"{LONG * 3}0.4"), row("unlike", 0.3, f"{LONG * 4}0.3"),
        row("one", 0.9),
    )  # fmt: skip
    assert scores(RecipeRedditPairs(path, sample_rate=1.0)) == [
        ("gap", 0.9, 0.7), ("none", 0.5, 0.44), ("unlike", 0.9, 0.3),
    ]  # fmt: skip
    [pair] = RecipeRedditPairs(path, sample_rate=1.0, max_post_chars=6).pairs(lambda post: post == "gap")
    assert pair.prompt[0].content == (
        "SUBREDDIT: r/investing\nTITLE: Title gap\nPOST: I hold\n---\n"
        "Reply like a helpful finance assistant. Be specific, polite, and practical."
    )


def test_the_recipe_s_sample_is_seeded_and_split_by_posts(file_of: Callable[..., str]) -> None:
    path = file_of(*(row(f"p{i}", s) for i in range(20) for s in (0.9, 0.1)))
    source = RecipeRedditPairs(path, sample_rate=0.3)
    drawn = [name for name, *_ in said(source)]
    assert len(drawn) == 6
    assert drawn == [name for name, *_ in said(source)] != [name for name, *_ in said(RecipeRedditPairs(path, seed=7))]
    sides = [source.pairs(lambda post, held=held: is_held_out(post, 0.5, 0) == held) for held in (True, False)]
    assert sorted(pair.id for side in sides for pair in side) == sorted(drawn)
    with pytest.raises(ValueError, match="no pair: 0 of 1 posts have two comments"):
        said(RecipeRedditPairs(file_of(row())))
