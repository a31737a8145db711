"""TAT-QA's official scorer, from a folder outside of this project, and answers that try it.

``python tests/metrics/tat_qa_official.py FOLDER`` writes ``tat_qa_official_scores.jsonl``. FOLDER holds
``tatqa_metric.py`` and ``tatqa_utils.py`` of NExTplusplus/TAT-QA; nothing of them is copied here. For the file as it
is, the first came from that repository (commit c54088c5), the second from its copy in jtonglet/SEER (93e1867b).
The later scorers of TAT-DQA and TAT-LLM have files of the same names and differ: ``(12%)`` is negative there.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SCORES = Path(__file__).with_name("tat_qa_official_scores.jsonl")
SCALES = ["", "thousand", "million", "billion", "percent"]
Answer = Any
Question = dict[str, Any]
Scores = list[float]
Scorer = Callable[[Question, Answer, Any], Scores | str]


def load_scorer(folder: str) -> Scorer:
    """The official scorer as a function of question, answer and scale: three scores, or the name of its error."""
    missing = [name for name in ("pandas", "scipy") if importlib.util.find_spec(name) is None]
    stand_ins = {name: types.ModuleType(name) for name in missing}
    if "scipy" in stand_ins:  # called on matrices of one row and one column only
        stand_ins["scipy.optimize"] = types.ModuleType("scipy.optimize")
        stand_ins["scipy.optimize"].linear_sum_assignment = _only_cell  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    sys.path.insert(0, folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in its patterns
            metric = importlib.import_module("tatqa_metric")
    finally:
        sys.path.remove(folder)
        for name in stand_ins:
            del sys.modules[name]

    def scores(question: Question, answer: Answer, scale: Any) -> Scores | str:
        scorer = metric.TaTQAEmAndF1()
        try:
            scorer(ground_truth=question, prediction=answer, pred_scale=scale)
        except Exception as error:
            return type(error).__name__
        return [float(score) for score in scorer.get_overall_metric()[:3]]

    return scores


def _only_cell(costs: Any) -> tuple[list[int], list[int]]:
    assert costs.shape == (1, 1)
    return [0], [0]


def _parts(text: str) -> list[str]:
    return text.split("|")


def question(answer: Answer, answer_type: str, scale: str = "") -> Question:
    return {"answer": answer, "answer_type": answer_type, "scale": scale}


QUESTIONS = [
    question(-12.6, "arithmetic", "million"),
    question(22.12, "arithmetic", "percent"),
    question(66.67, "arithmetic", "percent"),
    question(-0.01, "arithmetic", "percent"),
    question(0, "arithmetic", "percent"),
    question(0.0, "arithmetic"),
    question(1.5, "arithmetic", "billion"),
    question(172, "arithmetic", "million"),
    question(1238130.33, "arithmetic"),
    question(12.345, "arithmetic", "thousand"),
    question(2, "arithmetic"),
    question("2", "count"),
    question("0", "count"),
    question("11", "count"),
    question(["$1,496.5"], "span", "million"),
    question(["10%"], "span"),
    question(["(0.8)%"], "span"),
    question(["$(9.8)"], "span", "million"),
    question(["2019"], "span"),
    question(["172 million"], "span"),
    question([".5"], "span"),
    question(["30 June 2019"], "span"),
    question(["The net-sales of the U.S. company, a 5% rise"], "span"),
    question(["fixed price and\xa0cost plus – the “rest”"], "span"),
    question(["an increase of $3.2 million; see Note (7)"], "span", "million"),
    question([], "span"),
    question(["2018", "2019"], "multi-span"),
    question(["2019", "2018", "2017"], "multi-span"),
    question(["57,768", "73,260"], "multi-span", "thousand"),
    question(["4.5%", "4.6%"], "multi-span"),
    question(["Other", "fixed price", "cost plus"], "multi-span"),
    question(["Defined contribution schemes", "Defined benefit schemes", ""], "multi-span"),
    question(["$1,073.3", "Other income", "(12)"], "multi-span", "million"),
    question(["one two three four five six seven", "eight nine ten eleven twelve", "of 3 the 4"], "multi-span"),
]

ODDITIES: list[Answer] = _parts(
    "|0|-0|0.0|-0.0|(0)|(0.0)|0%|nan|NaN|inf|-inf|Infinity|.5|-.5|.7|5.|+5|1e5|1E5|1_000|٣|½|—|-|–5|−5|N/A|%|$|(|()|(.)"
    "|( 1 2 )|1 2|a|the|a an the|the-a|None|none|one|two|1 million million|million|5 hundred thousand|2 Percent"
    "|5\xa0million|5\tmillion|12\n13|  |\u3000|5 millionaires|12abc million|1 2million|22.12 percent|12%%|(12%)|(12)%"
    "|2018 2019|2019, 2018|2 items|12.5 USD|12.3.|The answer is 12.3|10 %|%10|1,2,3|1 000|1'000|#5|5#|ＡＢＣ|İ|ΑΣ ΟΔΟΣ"
)
ODDITIES += ["9" * 400, "9" * 400 + ".5", "9" * 400 + "%", None, 0, 0.0, -0.0, False, True, [], [""], ["", ""], [0]]
ODDITIES += [1e-7, 1e22, -0.001, 2.675, 1.005, 0.2212, 22.12, 2212, -12.6, [-12.6], [12.6], [-0.0], [2, 10], [10, 2]]
ODDITIES += [["2", "10"], [2, 1.5], ["x", 1], [None], [None, None], [True], [["x"]], [1, True]]
OTHER_SCALES: list[Any] = [
    None,
    "millions",
    "Million",
    "hundred",
    "percentage",
    " ",
    "%",
    "hundred thousand",
    "dollars",
]

AROUND = _parts(
    "-#|+#|(#)|( # )|(#|#)|$#|$(#)|($#)|-$#|$-#|£#|€#|¥#|US$#|#%|# %|%#|(#%)|(#)%|#\xa0%| # |#.|#,|#;|#:|#…|# million"
    "|# Million|# millions|#million|#m|# percent|# thousand|# thousand dollars|# billion|# hundred|USD #|# USD"
    "|about #|the #|a #|# an|The answer is #|# items|#\n|\n#|#\t|\xa0#|#\u2009|'#'|“#”|[#]|**#**|~#|=#|#0|#5|#.0|#.5"
    '|"#"'
    "|\\#|#|# #|#, #|#\n#|#-#|#*|#1|0#|0.#|#e3|_#_|#/2|# (2019)|(2019) #|#\u200b|-#%|(#) million|$# million|#% thousand"
)


# Cases that decide between the scorer and a simpler one, which chance finds seldom.
TRAPS: list[tuple[Question, Answer, Any]] = [
    (question(12.34, "arithmetic", "thousand"), "12.344", "thousand"),
    (question(12.34, "arithmetic", "thousand"), "12.346", "thousand"),
    (question(2.67, "arithmetic"), "2.675", ""),
    (question(0.22, "arithmetic", "percent"), "0.2212%", ""),
    (question(-12.6, "arithmetic"), "($12.6)", ""),
    (question(12.6, "arithmetic"), "($12.6)", ""),
    (question(1234, "arithmetic"), "$(1,234)", ""),
    (question(-12.6, "arithmetic", "percent"), "(12.6%)", ""),
    (question(12.6, "arithmetic", "percent"), "(12.6%)", ""),
    (question(10, "arithmetic"), "%10", ""),
    (question(0.1, "arithmetic"), "%10", ""),
    (question(0.1, "arithmetic"), "10 %", ""),
    (question(22.12, "arithmetic", "percent"), "0.2212", ""),
    (question(22.12, "arithmetic", "percent"), [0.2212], ""),
    (question(22.12, "arithmetic", "percent"), ["0.2212", "0.2212"], ""),
    (question(22.12, "arithmetic", "percent"), "22.12 percent", ""),
    (question(["0.22"], "span"), "0.2212", ""),
    (question(["100"], "span"), "1 hundred", ""),
    (question(["10", "9"], "multi-span"), [10, 9], ""),
    # 7 of 40 tokens on both sides: 0.175, rounded to 0.18.
    (question([" ".join(f"w{i}" for i in range(40))], "span"), " ".join(f"w{i}" for i in range(33, 73)), ""),
]


def _edited(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    place = rng.randrange(len(text) + 1)
    edits: list[Callable[[], str]] = [
        lambda: rng.choice(AROUND).replace("#", text),
        lambda: rng.choice(AROUND).replace("#", text),
        lambda: rng.choice([text.upper(), text.lower(), text.title(), text.swapcase()]),
        lambda: text.replace("-", rng.choice("−–—‐ ")),
        lambda: text.replace(" ", rng.choice(["\xa0", "  ", "\t", "\n", "-", ""])),
        lambda: text.replace(".", rng.choice(["", ",", "..", ". "])),
        lambda: text.replace(",", rng.choice(["", ".", " ", ";"])),
        lambda: text[:place] + text[place + 1 :],
        lambda: text[:place] + rng.choice("0123456789.,-()%$ aAе'\"\\\xa0[]#") + text[place:],
        lambda: " ".join(rng.sample(words, len(words))),
        lambda: " ".join(words[: rng.randrange(len(words)) + 1]),
        lambda: " ".join([*words, rng.choice(words)]),
        lambda: text.strip("-$%()"),
    ]
    return rng.choice(edits)()


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").strip("$%()"))
    except ValueError:
        return None


def _shifted(rng: random.Random, value: float) -> Answer:
    shifted = rng.choice([value, -value, value * 100, value / 100, value * 1000, value / 1000, value * 1e6])
    shifted += rng.choice([0, 0, 0.001, 0.004, 0.005, 0.006, -0.004, -0.005, 0.01, 1])
    shifted = rng.choice([shifted, round(shifted, 1), round(shifted, 2), round(shifted, 4)])
    written = [shifted, str(shifted), f"{shifted:,.2f}", f"{shifted:.3f}", f"{shifted:.4g}", [shifted], int(shifted)]
    return rng.choice(written)


def attempt(rng: random.Random, asked: Question) -> tuple[Answer, Any]:
    """An answer and a scale: the gold ones, more or less bent, or something odd."""
    gold = asked["answer"] if isinstance(asked["answer"], list) else [asked["answer"]]
    scale = rng.choice([asked["scale"]] * 6 + SCALES * 2 + OTHER_SCALES)
    kind = rng.random()
    if kind < 0.1 or not gold:
        return rng.choice(ODDITIES), scale
    texts = [str(item) for item in gold]
    value = _number(rng.choice(texts))
    if kind < 0.3 and value is not None:
        return _shifted(rng, value), scale
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        index = rng.randrange(len(texts))
        texts[index] = _edited(rng, texts[index])
    if rng.random() < 0.5:
        rng.shuffle(texts)
    if rng.random() < 0.1:
        texts = texts[:-1] if len(texts) > 1 else [*texts, rng.choice(texts)]
    if rng.random() < 0.1:
        texts = [f"{text} {scale or ''}".strip() for text in texts]
    if len(texts) == 1 and rng.random() < 0.7:
        return texts[0], scale
    return (texts if rng.random() < 0.9 else rng.choice([", ", "; ", " ", "\n"]).join(texts)), scale


def attempts(questions: list[Question], count: int, seed: int) -> Iterator[tuple[Question, Answer, Any]]:
    rng = random.Random(seed)
    for index in range(count):
        asked = questions[index % len(questions)]
        yield (asked, *attempt(rng, asked))


def table(scorer: Scorer) -> Iterator[dict[str, Any]]:
    """The traps, every oddity as an answer to some question, many bent answers to every question; with their scores."""
    rng = random.Random(0)
    cases = [(rng.choice(QUESTIONS), odd, rng.choice(["", "", "million", None])) for odd in ODDITIES]
    cases += [(asked, asked["answer"], scale) for asked in QUESTIONS for scale in ("", asked["scale"])]
    cases += [
        (asked, rng.choice(AROUND).replace("#", str(asked["answer"])), asked["scale"]) for asked in QUESTIONS[:14]
    ]
    for asked, answer, scale in [*TRAPS, *cases, *attempts(QUESTIONS, 12 * len(QUESTIONS), seed=1)]:
        for said in dict.fromkeys([scale, scale or ""]):  # a number with the scale None stops the scorer
            yield {"gold": asked, "answer": answer, "scale": said, "scores": scorer(asked, answer, said)}


def frozen_cases() -> list[dict[str, Any]]:
    return [json.loads(line) for line in SCORES.read_text("utf-8").splitlines()[1:]]


def main(folder: str) -> None:
    made = (
        "python tests/metrics/tat_qa_official.py FOLDER, where FOLDER holds tatqa_metric.py of NExTplusplus/TAT-QA "
        "(c54088c5) and its tatqa_utils.py (as copied in jtonglet/SEER, 93e1867b); the questions are made up. "
        "scores: exact match, F1, scale, or the name of the official scorer's error"
    )
    lines = [json.dumps(row, ensure_ascii=False) for row in [{"made": made}, *table(load_scorer(folder))]]
    SCORES.write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
