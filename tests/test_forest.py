"""The forest holds the paths that it was built from, shares what they share, and gives targets to examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_align.forest import TokenClass, TokenForest, TokenPath, Window
from lit_align.models.tree_attention import plan_attention, sees
from lit_align.trie import shared_size

# Few distinct tokens: sequences then share beginnings, contain and equal one another all the time.
sequences = st.lists(st.integers(0, 2), min_size=1, max_size=9)
groups_of_sequences = st.lists(st.lists(sequences, min_size=1, max_size=7), min_size=1, max_size=4)


def path(tokens: list[int], classes: list[int] | None = None, name: str = "x", weight: float = 1.0) -> TokenPath:
    labels = classes if classes is not None else [0] + [1] * (len(tokens) - 1)
    return TokenPath(np.array(tokens, np.int32), np.array(labels, np.uint8), name, weight)


def ancestors_by_parents(forest: TokenForest) -> torch.Tensor:
    """Which row sees which, from the segments' parents alone."""
    size = len(forest)
    visible = torch.zeros(size, size, dtype=torch.bool)
    for row in range(size):
        for part in forest.path_rows(row):
            visible[row, list(part)] = True
    return visible


@settings(max_examples=200, deadline=None)
@given(groups_of_sequences)
def test_paths_come_back_as_they_went_in(groups: list[list[list[int]]]) -> None:
    forest = TokenForest.build([[path(tokens) for tokens in group] for group in groups])
    assert [p.tolist() for p in forest.paths()] == [tokens for group in groups for tokens in group]
    for last in forest.last_rows:
        rows = [row for part in forest.path_rows(last) for row in part]
        assert forest.positions[rows].tolist() == list(range(len(rows)))


@settings(max_examples=200, deadline=None)
@given(groups_of_sequences)
def test_rows_are_the_distinct_beginnings_of_each_group(groups: list[list[list[int]]]) -> None:
    forest = TokenForest.build([[path(tokens) for tokens in group] for group in groups])
    beginnings = [{tuple(t[: n + 1]) for t in group for n in range(len(t))} for group in groups]
    assert len(forest) == sum(map(len, beginnings))
    assert [shared_size([np.array(t, np.int32) for t in group]) for group in groups] == [len(b) for b in beginnings]


@settings(max_examples=200, deadline=None)
@given(groups_of_sequences)
def test_a_row_sees_its_ancestors_and_nothing_else(groups: list[list[list[int]]]) -> None:
    forest = TokenForest.build([[path(tokens) for tokens in group] for group in groups])
    rows = torch.arange(len(forest))
    assert torch.equal(sees(rows, rows, forest.subtree_end), ancestors_by_parents(forest))


@settings(max_examples=200, deadline=None)
@given(groups_of_sequences, st.sampled_from([1, 3, 512]))
def test_attention_calls_cover_each_row_once_and_follow_the_rule(groups: list[list[list[int]]], bundle: int) -> None:
    forest = TokenForest.build([[path(tokens) for tokens in group] for group in groups])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_align.models.tree_attention._BUNDLE_ROWS", bundle)
        plan = plan_attention(forest)
    covered = [row for call in plan for row in range(*call.queries)]
    assert covered == list(range(len(forest)))
    visible = torch.zeros(len(forest), len(forest), dtype=torch.bool)
    for call in plan:
        keys = [row for run in call.keys for row in range(*run)]
        n = call.queries[1] - call.queries[0]
        mask = torch.ones(n, n).tril().bool() if call.mask is None else call.mask
        visible[call.queries[0] : call.queries[1], keys] = mask
    assert torch.equal(visible, ancestors_by_parents(forest))


def test_a_conversation_alone_needs_no_mask() -> None:
    forest = TokenForest.build([[path(list(range(50)))], [path(list(range(30)))]])
    assert [call.mask for call in plan_attention(forest)] == [None, None]


def test_a_pair_needs_a_mask_of_its_smaller_answer_only() -> None:
    prompt = list(range(3, 40))
    forest = TokenForest.build([[path([*prompt, 1, 1, 1, 1, 1]), path([*prompt, 2, 2])]])
    masks = [call.mask for call in plan_attention(forest)]
    assert masks[0] is None
    assert masks[1] is not None
    assert masks[1].shape == (2, len(prompt) + 2)


@settings(max_examples=200, deadline=None)
@given(groups_of_sequences)
def test_targets_belong_to_examples(groups: list[list[list[int]]]) -> None:
    forest = TokenForest.build([[path(tokens) for tokens in group] for group in groups])
    flat = [tokens for group in groups for tokens in group]
    for index, tokens in enumerate(flat):
        mine = forest.target_examples == index
        assert forest.pair_tokens[forest.target_pairs[mine]].tolist() == tokens[1:]
        rows = forest.pair_rows[forest.target_pairs[mine]]
        assert forest.tokens[rows].tolist() == tokens[:-1]
        assert forest.target_from_end[mine].tolist() == list(range(len(tokens) - 1))[::-1]
    pairs = list(zip(forest.pair_rows.tolist(), forest.pair_tokens.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))


def test_two_equal_examples_count_twice_and_the_head_runs_once() -> None:
    forest = TokenForest.build([[path([1, 2, 3], name="a"), path([1, 2, 3], name="b")]])
    assert len(forest) == 3
    assert forest.pair_rows.tolist() == [0, 1]
    assert forest.target_pairs.tolist() == [0, 1, 0, 1]
    assert forest.target_examples.tolist() == [0, 0, 1, 1]


def test_only_wanted_classes_are_targets_and_the_tail_counts_answer_tokens() -> None:
    example = path([5, 6, 7, 8, 9, 4], [0, 0, 2, 1, 1, 2])
    forest = TokenForest.build([[example]])
    assert forest.pair_tokens.tolist() == [8, 9]
    assert forest.target_from_end.tolist() == [1, 0]
    everything = TokenForest.build([[example]], target_classes=list(TokenClass))
    assert everything.pair_tokens[everything.target_pairs].tolist() == [6, 7, 8, 9, 4]
    assert everything.target_classes.tolist() == [0, 2, 1, 1, 2]
    assert (everything.target_from_end < 10).tolist() == [False, False, True, True, False]


def test_groups_share_nothing() -> None:
    together = TokenForest.build([[path([1, 2, 3]), path([1, 2, 4])]])
    apart = TokenForest.build([[path([1, 2, 3])], [path([1, 2, 4])]])
    assert (len(together), len(apart)) == (4, 6)


def test_a_forest_moves_with_all_its_tensors_and_keeps_its_tree() -> None:
    forest = TokenForest.build([[path([1, 2, 3]), path([1, 2, 4])]])
    moved = Window((forest,), 3, ("x", "x")).to("meta").forests[0]
    assert moved.tokens.device.type == moved.target_weights.device.type == "meta"
    assert moved.segments == forest.segments


def test_an_empty_path_is_refused_by_the_name_of_its_example() -> None:
    with pytest.raises(ValueError, match="example row 7: a path needs at least one token"):
        TokenForest.build([[path([], [], name="row 7")]])


@settings(max_examples=200, deadline=None)
@given(groups_of_sequences, st.data())
def test_a_forest_of_some_examples_is_the_one_that_is_built_of_them(
    groups: list[list[list[int]]], data: st.DataObject
) -> None:
    paths = [[path(tokens, name=f"{g}.{n}") for n, tokens in enumerate(group)] for g, group in enumerate(groups)]
    whole = TokenForest.build(paths)
    kept = sorted(data.draw(st.sets(st.sampled_from(range(len(whole.examples))), min_size=1)))
    names = [whole.examples[one] for one in kept]
    part = whole.only(kept)
    built = TokenForest.build([some for group in paths if (some := [one for one in group if one.example in names])])
    assert part.examples == built.examples == tuple(names)
    assert len(part) == len(built)
    assert [p.tolist() for p in part.paths()] == [p.tolist() for p in built.paths()]
    for name in ("target_examples", "target_classes", "target_weights", "target_from_end"):
        assert torch.equal(getattr(part, name), getattr(built, name))
    # Rows may stand in another order; what a target is predicted from does not change.
    (rows, tokens), (built_rows, built_tokens) = (
        (one.pair_rows[one.target_pairs], one.pair_tokens[one.target_pairs]) for one in (part, built)
    )
    assert torch.equal(tokens, built_tokens)
    assert torch.equal(part.tokens[rows], built.tokens[built_rows])
    assert torch.equal(part.positions[rows], built.positions[built_rows])
    pairs = list(zip(part.pair_rows.tolist(), part.pair_tokens.tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) == len(built.pair_rows)
    rows = torch.arange(len(part))
    assert torch.equal(sees(rows, rows, part.subtree_end), ancestors_by_parents(part))
    for last in part.last_rows:
        own = [row for run in part.path_rows(last) for row in run]
        assert part.positions[own].tolist() == list(range(len(own)))


@settings(max_examples=100, deadline=None)
@given(groups_of_sequences, st.data(), st.sampled_from([1, 3, 512]))
def test_attention_over_some_examples_follows_the_rule(
    groups: list[list[list[int]]], data: st.DataObject, bundle: int
) -> None:
    whole = TokenForest.build([[path(tokens) for tokens in group] for group in groups])
    forest = whole.only(sorted(data.draw(st.sets(st.sampled_from(range(len(whole.examples))), min_size=1))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lit_align.models.tree_attention._BUNDLE_ROWS", bundle)
        plan = plan_attention(forest)
    assert [row for call in plan for row in range(*call.queries)] == list(range(len(forest)))
    visible = torch.zeros(len(forest), len(forest), dtype=torch.bool)
    for call in plan:
        keys = [row for run in call.keys for row in range(*run)]
        n = call.queries[1] - call.queries[0]
        mask = torch.ones(n, n).tril().bool() if call.mask is None else call.mask
        visible[call.queries[0] : call.queries[1], keys] = mask
    assert torch.equal(visible, ancestors_by_parents(forest))


def test_a_forest_of_no_example_is_refused() -> None:
    with pytest.raises(ValueError, match=r"forest of \('x',\): at least one of its examples must be kept, got none"):
        TokenForest.build([[path([1, 2])]]).only([])
