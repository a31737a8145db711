"""Wrong lists and wrong counts: an item dropped, replaced or added, a whole list from another row."""

from __future__ import annotations

from lit_align.data.sources.tat_qa.candidates import Asked, Candidate
from lit_align.data.sources.tat_qa.numbers import dressed_as, read_number
from lit_align.data.sources.tat_qa.spans import in_case_of, kind_of, replacements

_OTHER_SCALE = {"thousand": "million", "million": "thousand", "billion": "million"}
_MOST_PER_ITEM = 8


def list_candidates(asked: Asked) -> list[Candidate]:
    """Make wrong answers of a multi-span question.

    Args:
        asked: The question with its table and passages.
    """
    question, gold = asked.question, asked.question.answer
    found: list[Candidate] = []

    def add(items: list[str], construction: str, scale: str = question.scale) -> None:
        if len(items) > 1:
            found.append(Candidate(tuple(items), scale, construction))

    for i, item in enumerate(gold):
        if len(gold) > 2:
            add([*gold[:i], *gold[i + 1 :]], "drop")
        others = [(how, text) for how, text in replacements(item, asked) if text not in gold][:_MOST_PER_ITEM]
        for how, other in others:
            add([*gold[:i], other, *gold[i + 1 :]], "replace")
            if how not in ("trim", "extend"):  # beside the item that it was made of it would say the same twice
                add([*gold[: i + 1], other, *gold[i + 1 :]], "insert")
    for items in _parallel(asked):
        add(items, "parallel")
    for sibling in asked.siblings:
        same = sibling.answer_type == "multi-span" and sibling.scale == question.scale
        if same and kind_of(sibling.answer[0], asked) == kind_of(gold[0], asked):
            add([in_case_of(item, gold[0]) for item in sibling.answer], "sib")
    if question.scale in _OTHER_SCALE:
        add(list(gold), "scale", _OTHER_SCALE[question.scale])
    return found


def _parallel(asked: Asked) -> list[list[str]]:
    """The same list from another row or column of the table."""
    grid, gold = asked.grid, asked.question.answer
    numbers = [read_number(item) for item in gold]
    if not all(numbers):
        return []
    lists = []
    for lines, axis in ((grid.rows, 0), (grid.columns, 1)):
        for line in lines:
            places = [
                next((place for place in grid.places_of(number.value) if place[axis] == line), None)
                for number in numbers
                if number
            ]
            across = [place[1 - axis] for place in places if place]
            if len(across) != len(gold) or len(set(across)) != len(across):
                continue
            for other in lines:
                moved = [(other, at) if axis == 0 else (at, other) for at in across]
                if other != line and all(place in grid.numbers for place in moved):
                    pairs = zip(moved, numbers, strict=True)
                    lists.append([dressed_as(grid.numbers[place], number) for place, number in pairs if number])
    return lists


def count_candidates(asked: Asked) -> list[Candidate]:
    """Make wrong answers of a count question: two less to three more, at least 1.

    Args:
        asked: The question with its table; the derivation lists what was counted.
    """
    question = asked.question
    gold = int(question.answer[0])
    counted = [item.strip() for item in question.derivation.split("##") if item.strip()]
    labels = [*asked.grid.row_labels(), *asked.grid.column_labels()]
    more = [label for label in labels if label not in counted]
    found = []
    for value in range(max(1, gold - 2), gold + 4):
        items = [*counted, *more][:value] if len(counted) == gold else []
        derivation = "##".join(items) if len(items) == value else ""
        if value != gold:
            found.append(Candidate((str(value),), question.scale, f"{value - gold:+d}", derivation))
    return found
