"""The reward model as a scorer: what it reads, what it refuses, and where it is between evaluations."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reward_models import save_reward_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lit_align.evals.judge import CalibratedMap, Judged, LegacyMap, RewardModelScorer
from lit_align.evals.judge.reward_weights import reward_folder
from lit_align.types import Message

CPU = torch.device("cpu")
LONG = "the cat sat on the mat " * 8


def judged(answer: str = "It is 4.", question: str = "2 + 2?", name: str = "a") -> Judged:
    return Judged(name, (Message("user", question),), answer)


SOME = [judged(answer, question) for question in ("2 + 2?", "Hi") for answer in ("4", LONG, "", "<|im_end|> no", "да")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_reward_model(tmp_path_factory.mktemp("reward"))


@pytest.fixture
def scorer(folder: str) -> RewardModelScorer:
    return RewardModelScorer(folder, dtype="float32")


def rewards(scorer: RewardModelScorer, answers: list[Judged]) -> list[float]:
    return [one["reward"] for one in replace(scorer).scores(answers, CPU)]


def calibration(path: Path, fingerprint: str, **changes: Any) -> str:
    held = {
        "format": 1, "mu": 0.5, "s": 2.0, "reward_model": {"path": "m", "fingerprint": fingerprint}, **changes,
    }  # fmt: skip
    path.write_text(json.dumps(held), encoding="utf-8")
    return str(path)


def test_the_reward_is_the_logit_at_the_end_of_the_model_s_own_template(scorer: RewardModelScorer, folder: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for one in SOME:
        turns = [{"role": "user", "content": one.prompt[0].content}, {"role": "assistant", "content": one.answer}]
        ids = tokenizer.apply_chat_template(turns, return_dict=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
            naive = float(hidden.double() @ model.score.weight[0].double())
        assert rewards(scorer, [one]) == pytest.approx([naive], abs=1e-5)


def test_batch_and_order_do_not_change_a_reward(scorer: RewardModelScorer) -> None:
    one_by_one = rewards(replace(scorer, batch_size=1), SOME)
    assert len({*one_by_one}) == len(SOME)
    for size in (2, 3, 100):
        assert rewards(replace(scorer, batch_size=size), SOME) == pytest.approx(one_by_one, abs=1e-5)
    assert rewards(scorer, SOME[::-1])[::-1] == pytest.approx(one_by_one, abs=1e-5)


def test_an_equal_answer_has_exactly_the_same_reward_whatever_it_is_read_with(scorer: RewardModelScorer) -> None:
    few = [one["reward"] for one in scorer.scores(SOME[2:5], CPU)]
    many = [one["reward"] for one in scorer.scores([*SOME, judged("new"), SOME[2]], CPU)]
    assert many[2:5] == few
    assert many[-1] == few[0]


def test_what_is_kept_of_a_conversation_does_not_grow_with_its_length(folder: str) -> None:
    scorer = RewardModelScorer(folder, dtype="float32")
    scorer.scores([judged("short"), judged("long " * 50)], CPU)
    assert {len(name) for name in scorer._known} == {32}


def test_an_empty_answer_has_a_reward_and_is_counted(
    scorer: RewardModelScorer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    assert math.isfinite(rewards(scorer, SOME)[2])
    assert "2 of 10 answers are empty: scored as an empty turn" in caplog.text


def test_without_a_map_there_is_a_reward_alone_and_one_line_says_so(
    folder: str, scorer: RewardModelScorer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    assert dict(scorer.measures()) == {"reward": (-math.inf, math.inf)}
    other = RewardModelScorer(f"{folder}/.", dtype="float32")
    for _ in range(2):
        assert set(other.scores(SOME[:1], CPU)[0]) == {"reward"}
    assert caplog.text.count("no calibration, so only raw rewards and win rates are reported") == 1


def test_the_score_is_the_sigmoid_of_the_calibration(scorer: RewardModelScorer, tmp_path: Path) -> None:
    path = calibration(tmp_path / "c.json", str(scorer.identity()["fingerprint"]))
    mapped = replace(scorer, score_map=CalibratedMap(path))
    mapped.check()
    assert list(mapped.measures()) == ["score", "reward"]
    for one in mapped.scores(SOME, CPU):
        assert one["score"] == pytest.approx(1 + 9 / (1 + math.exp(-(one["reward"] - 0.5) / 2)), abs=1e-12)
    assert mapped.identity() != scorer.identity()


def test_a_calibration_of_another_reward_model_is_refused(scorer: RewardModelScorer, tmp_path: Path) -> None:
    other = RewardModelScorer(save_reward_model(tmp_path / "other", seed=8))
    path = calibration(tmp_path / "c.json", str(other.identity()["fingerprint"]))
    with pytest.raises(ValueError, match=r"c\.json: calibrates the reward model m with fingerprint \w{16}, and this"):
        replace(scorer, score_map=CalibratedMap(path)).check()


def test_the_fingerprint_is_of_what_a_model_is_not_of_where_it_lies(folder: str, tmp_path: Path) -> None:
    here = reward_folder(folder).fingerprint()
    assert reward_folder(save_reward_model(tmp_path / "copy")).fingerprint() == here
    template = "{% for m in messages %}<|im_start|>{{ m.role + m.content }}<|im_end|>{% endfor %}"
    assert reward_folder(save_reward_model(tmp_path / "said", template=template)).fingerprint() != here


def test_the_original_s_map_has_a_name_of_its_own(scorer: RewardModelScorer) -> None:
    legacy = replace(scorer, score_map=LegacyMap())
    legacy.check()
    assert list(legacy.measures()) == ["legacy_score", "reward"]
    assert all(1 <= one["legacy_score"] <= 10 for one in legacy.scores(SOME, CPU))


def test_a_conversation_over_the_limit_is_an_error_that_names_it(scorer: RewardModelScorer) -> None:
    with pytest.raises(ValueError, match=r"^long: prompt and answer have \d+ tokens, over the limit .* \(40\): set"):
        replace(scorer, max_length=40).scores([judged(LONG, name="long")], CPU)


def test_a_cut_conversation_is_counted_and_still_ends_its_turn(
    scorer: RewardModelScorer, folder: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    cutting = replace(scorer, max_length=40, overlong="cut")
    assert dict(cutting.measures())["cut"] == (0.0, 1.0)
    found = cutting.scores([judged("4"), judged(LONG)], CPU)
    assert [one["cut"] for one in found] == [0.0, 1.0]
    assert "1 of 2 answers are cut for the reward model at 40 tokens" in caplog.text
    render = reward_folder(folder).render
    whole, part = render(judged(LONG), 0, cut=False).tokens, render(judged(LONG), 40, cut=True).tokens
    assert len(part) == 40
    assert part[-2:] == whole[-2:]
    assert part[:-2] == whole[:38]


def test_what_just_fits_is_not_cut(scorer: RewardModelScorer, folder: str) -> None:
    length = len(reward_folder(folder).render(judged(), 0, cut=False).tokens)
    exact = replace(scorer, max_length=length, overlong="cut").scores([judged()], CPU)
    assert exact == [{"reward": pytest.approx(rewards(scorer, [judged()])[0], abs=1e-6), "cut": 0.0}]
    assert replace(scorer, max_length=length - 1, overlong="cut").scores([judged()], CPU)[0]["cut"] == 1.0


@pytest.mark.parametrize("overlong", ["error", "cut"])
def test_a_prompt_over_the_limit_is_an_error_in_any_case(scorer: RewardModelScorer, overlong: Any) -> None:
    with pytest.raises(ValueError, match=r"^p: its prompt has \d+ tokens, over the limit of the reward model .*\(20\)"):
        replace(scorer, max_length=20, overlong=overlong).scores([judged("4", LONG, "p")], CPU)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_labels": 2}, "has 2 labels; a reward is one number"),
        ({"pad_token_id": None}, "config.json has no pad_token_id"),
        ({"pad_token_id": 2}, "its pad token '<|im_end|>' also ends a turn"),
        ({"template": ""}, "has no chat template"),
    ],
    ids=str,
)
def test_what_is_no_reward_model_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = save_reward_model(tmp_path / "m", **changes)
    with pytest.raises(ValueError, match="reward model") as told:
        RewardModelScorer(path).check()
    assert said in str(told.value)
    assert path in str(told.value)


def test_a_base_without_reward_head_is_refused(tmp_path: Path) -> None:
    from random_models import save_random_model

    path = save_random_model(tmp_path / "base", "qwen3", vocab_size=700, num_labels=1)
    from transformers import AutoTokenizer

    from lit_align.tokenizer import resolve_base

    AutoTokenizer.from_pretrained(resolve_base("tiny-qwen3").path).save_pretrained(path)
    scorer = RewardModelScorer(path, dtype="float32")
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"has no weights for score\.weight, which would be random"):
        scorer.scores(SOME[:1], CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_template_that_refuses_the_turns_is_an_error_that_names_the_answer(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    )
    scorer = RewardModelScorer(save_reward_model(tmp_path / "m", template=template), dtype="float32")
    one = Judged("x", (Message("system", "s"), Message("user", "u")), "a")
    with pytest.raises(ValueError, match=r"^x: the chat template .* refuses its turns \(system, user, assistant\): no"):
        scorer.scores([one], CPU)


def test_weights_that_give_no_number_are_an_error_that_names_the_answer(tmp_path: Path) -> None:
    path = save_reward_model(tmp_path / "m")
    model = AutoModelForSequenceClassification.from_pretrained(path)
    torch.nn.init.constant_(model.score.weight, math.nan)
    model.save_pretrained(path)
    with pytest.raises(ValueError, match=r"^a: the reward is nan"):
        RewardModelScorer(path, dtype="float32").scores(SOME[:1], CPU)


def test_absent_models_and_gguf_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="reward model: base '/nowhere': no such file"):
        RewardModelScorer("/nowhere").check()
    with pytest.raises(ValueError, match="fewer than `max_length` = 2048"):
        RewardModelScorer(save_reward_model(tmp_path / "m"), max_length=2048).check()


def test_without_the_hub_it_is_said_how_to_bring_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(
        FileNotFoundError, match=r"org/judge: cannot be read .*no route.*`hf download org/judge --local"
    ):
        RewardModelScorer("org/judge").check()


def test_a_hub_id_is_read_from_its_snapshot(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: folder)
    hub, local = RewardModelScorer("org/reward", dtype="float32"), RewardModelScorer(folder, dtype="float32")
    hub.check()
    assert hub.identity() == local.identity()
    assert rewards(hub, SOME) == pytest.approx(rewards(local, SOME), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"batch_size": 0}, "`batch_size` must be at least 1"), ({"max_length": -1}, "`max_length` must be >= 0")],
    ids=str,
)
def test_an_option_out_of_its_range_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RewardModelScorer(**options)


def test_weights_are_read_once_and_go_back_to_the_cpu(
    scorer: RewardModelScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reward_folder(scorer.path).model("float32")
    assert reward_folder(replace(scorer, batch_size=3).path).model("float32") is model
    went: list[str] = []
    monkeypatch.setattr(type(model), "to", lambda _, device: went.append(str(device)))
    rewards(scorer, SOME)
    assert went == ["cpu", "cpu"]
    monkeypatch.setattr(type(model), "forward", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        rewards(scorer, SOME)
    assert went == ["cpu"] * 4
