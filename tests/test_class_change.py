"""A class that takes the place of another starts from its own defaults, whichever way it is named."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from parsing import model_parser, parsed

from lit_align import cli
from lit_align.cli_answers import read_given
from lit_align.cli_class_change import class_changes
from lit_align.losses.preference import IPOLoss, RobustLoss, SigmoidLoss

SIGMOID = {"class_path": "SigmoidLoss", "init_args": {"beta": 0.37, "label_smoothing": 0.2}}
BASE: dict[str, Any] = {
    "model": {
        "class_path": "DPOModule",
        "init_args": {
            "base": "somewhere",
            "lora": {"rank": 3},
            "loss": SIGMOID,
            "reference": {"class_path": "FrozenAdapterReference", "init_args": {"path": "there"}},
            "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.5, "weight_decay": 0.7}},
            "schedule": {"class_path": "CosineSchedule", "init_args": {"warmup_steps": 9}},
        },
    },
    "data": {
        "class_path": "PreferenceDataModule",
        "init_args": {
            "window": 5,
            "sources": [{"class_path": "TATQA", "init_args": {"limit": 5, "group": "question", "seed": 7}}],
        },
    },
    "trainer": {"max_steps": 1},
}

FILE = {"limit": None, "group": ""}  # defaults of PreferenceFile


@pytest.fixture(autouse=True)
def _files() -> None:
    _write("base.yaml", BASE)
    _write("ipo.yaml", {"class_path": "IPOLoss"})
    _write("weighed.yaml", _loss({"class_path": "WPOLoss", "init_args": {"loss": SIGMOID}}))
    _write("mixture.yaml", _loss({"class_path": "WeightedSum", "init_args": {"losses": [SIGMOID], "weights": [1.0]}}))


def _write(name: str, content: object) -> str:
    Path(name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return name


def _loss(value: object) -> dict[str, Any]:
    return {"model": {"init_args": {"loss": value}}}


@pytest.fixture(scope="module")
def parser() -> cli.AlignParser:
    return model_parser()


def _args(parser: cli.AlignParser, *words: str) -> dict[str, Any]:
    """Arguments of the model."""
    found: dict[str, Any] = parser.parse_args(["-c", "base.yaml", *words]).as_dict()["model"]["init_args"]
    return found


IPO_DEFAULTS = asdict(IPOLoss())


@pytest.mark.parametrize(
    "words",
    [
        ["--model.loss=IPOLoss"],
        ["--model.loss", "IPOLoss"],
        ["--model.loss=lit_align.losses.preference.ipo.IPOLoss"],
        ["--model.init_args.loss=IPOLoss"],
        ["--model.loss.class_path=IPOLoss"],
        ["--model.loss={class_path: IPOLoss}"],
        ["--model.loss=ipo.yaml"],
        ["--model.loss=HingeLoss", "--model.loss.beta=0.9", "--model.loss=IPOLoss"],
        ["-c", "{model: {loss: IPOLoss}}"],
        ["-c", "{model: {init_args: {loss: {class_path: IPOLoss}}}}"],
        ["-c", "{model: {class_path: DPOModule, init_args: {loss: {class_path: IPOLoss}}}}"],
        ["-c", "{model: {init_args: {loss: ipo.yaml}}}"],
    ],
    ids=" ".join,
)
def test_a_loss_in_place_of_another_has_its_own_defaults(words: list[str], parser: cli.AlignParser) -> None:
    loss = _args(parser, *words)["loss"]
    assert loss["class_path"].endswith("IPOLoss")
    assert loss["init_args"] == IPO_DEFAULTS


@pytest.mark.parametrize(
    "words",
    [
        ["--model.loss=IPOLoss", "--model.loss.beta=0.2"],
        ["--model.loss.class_path=IPOLoss", "--model.loss.init_args.beta=0.2"],
        ["--model.loss={class_path: IPOLoss, init_args: {beta: 0.2}}"],
        ["-c", "{model: {init_args: {loss: {class_path: IPOLoss, init_args: {beta: 0.2}}}}}"],
        ["-c", "{model: {init_args: {loss: {init_args: {beta: 0.2}, class_path: IPOLoss}}}}"],
        ["-c", "{model: {loss: IPOLoss}}", "-c", "{model: {loss: {init_args: {beta: 0.2}}}}"],
        ["-c", "{model: {loss: IPOLoss}}", "--model.loss.beta=0.2"],
    ],
    ids=" ".join,
)
def test_options_with_the_new_class_or_after_it_are_its_own(words: list[str], parser: cli.AlignParser) -> None:
    assert _args(parser, *words)["loss"]["init_args"] == {**IPO_DEFAULTS, "beta": 0.2}


@pytest.mark.parametrize(
    "words",
    [
        ["--model.loss=SigmoidLoss"],
        ["--model.loss.class_path=lit_align.losses.preference.sigmoid.SigmoidLoss"],
        ["-c", "{model: {init_args: {loss: {class_path: SigmoidLoss}}}}"],
        ["-c", "{model: {class_path: DPOModule, init_args: {lora: {rank: 3}}}}"],
        ["--model=DPOModule"],
    ],
    ids=" ".join,
)
def test_the_same_class_named_again_keeps_its_options(words: list[str], parser: cli.AlignParser) -> None:
    found = _args(parser, *words)
    assert found["loss"]["init_args"] == SIGMOID["init_args"]
    assert (found["base"], found["lora"]["rank"]) == ("somewhere", 3)


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        (["--model.loss=RobustLoss"], "loss", asdict(RobustLoss())),
        (["--model.optimizer=AdamW8bit"], "optimizer", {"lr": 1e-3, "weight_decay": 0.01}),
        (["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=2"], "optimizer", {"lr": 2.0, "dampening": 0.0}),
        (["--model.schedule=ConstantSchedule"], "schedule", {"warmup_steps": 0}),
        (["--model.reference=BaseReference"], "reference", {}),
        (["-c", "weighed.yaml", "--model.loss.loss=IPOLoss"], "loss.loss", IPO_DEFAULTS),
        (["-c", "weighed.yaml", "--model.loss.loss=SigmoidLoss"], "loss.loss", SIGMOID["init_args"]),
        (["-c", "weighed.yaml", "-c", "{model: {loss: {init_args: {loss: IPOLoss}}}}"], "loss.loss", IPO_DEFAULTS),
        (
            ["-c", "weighed.yaml", "--model.loss=LDDPOLoss", "--model.loss.loss=SigmoidLoss"],
            "loss.loss", asdict(SigmoidLoss()),
        ),
        (["-c", "mixture.yaml", "--model.loss.losses=[IPOLoss]"], "loss.losses.0", IPO_DEFAULTS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_every_class_starts_from_its_own_defaults(
    words: list[str], key: str, expected: dict[str, Any], parser: cli.AlignParser
) -> None:
    place: Any = {"init_args": _args(parser, *words)}
    for part in key.split("."):
        place = place[int(part)] if part.isdigit() else place["init_args"][part]
    found = place.get("init_args", {})
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("words", "item", "expected"),
    [
        (["--data.sources.class_path=PreferenceFile", "--data.sources.path=x"], 0, FILE),
        (["--data.sources=[{class_path: PreferenceFile, init_args: {path: x}}]"], 0, FILE),
        (
            ["-c", "{data: {init_args: {sources: [{class_path: PreferenceFile, init_args: {path: x}}]}}}"],
            0, FILE,
        ),
        (["--data.sources+=PreferenceFile", "--data.sources.path=x"], 0, {"limit": 5, "seed": 7}),
        (["--data.sources+=PreferenceFile", "--data.sources.path=x"], 1, FILE),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_source_in_a_list_starts_from_its_own_defaults(
    words: list[str], item: int, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parsed(["fit", "-c", "base.yaml", *words], monkeypatch)["data"]["init_args"]["sources"][item]["init_args"]
    assert {name: found[name] for name in expected} == expected


def test_a_module_in_place_of_another_has_its_own_defaults(parser: cli.AlignParser) -> None:
    found = _args(parser, "--model=SFTModule")
    assert (found["base"], found["lora"]["rank"]) == ("tiny-qwen3", 16)


def test_the_divergence_of_an_anchor_changes_without_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    sft = {"class_path": "SFTModule", "init_args": {"anchor": {"coef": 0.7, "divergence": {"class_path": "ReverseKL"}}}}
    file = _write("sft.yaml", {**BASE, "model": sft})
    config = parsed(["fit", "-c", file, "--model.anchor.divergence=ForwardKL"], monkeypatch)
    anchor = config["model"]["init_args"]["anchor"]
    assert (anchor["coef"], anchor["divergence"]["class_path"]) == (0.7, "lit_align.losses.anchor.ForwardKL")


def test_the_real_command_does_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["--model.loss=IPOLoss"], ["-c", "{model: {init_args: {loss: {class_path: IPOLoss}}}}"]):
        model = parsed(["fit", "-c", "base.yaml", *words], monkeypatch)["model"]["init_args"]
        assert model["loss"]["init_args"] == IPO_DEFAULTS


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--model.loss=IPOLoss"],
            "`model.loss`: IPOLoss in place of SigmoidLoss, with its own defaults; not kept: beta = 0.37, "
            "label_smoothing = 0.2 of base.yaml",
        ),
        (
            ["--model.optimizer=AdamW8bit", "--model.optimizer.lr=1e-5"],
            "`model.optimizer`: AdamW8bit in place of AdamW, with its own defaults; not kept: lr = 0.5, "
            "weight_decay = 0.7 of base.yaml",
        ),
        (
            ["--model=SFTModule"],
            "`model`: SFTModule in place of DPOModule, with its own defaults; not kept: base = somewhere, lora, loss, "
            "reference, optimizer, schedule of base.yaml",
        ),
        (["--model.loss=SigmoidLoss", "--model.loss.beta=1"], None),
        (["--data.sources+=PreferenceFile", "--data.sources.path=x"], None),
        (["--name=SigmoidLoss", "--name=IPOLoss"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_one_line_says_what_is_not_kept(
    words: list[str], said: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "lit_align.cli"):
        parsed(["fit", "-c", "base.yaml", *words], monkeypatch)
    assert [record.getMessage() for record in caplog.records] == ([said] if said else [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--model.loss.beta=0.2", "--model.loss=IPOLoss"],
            "`model.loss.beta` stands before `model.loss`, which changes the class from SigmoidLoss to IPOLoss; ",
        ),
        (
            ["--model.loss.beta=0.2", "-c", "{model: {loss: {class_path: IPOLoss}}}"],
            "`model.loss.beta` stands before `model.loss`, which changes the class from SigmoidLoss to IPOLoss; ",
        ),
        (
            ["--model.lora.rank=8", "--model=SFTModule"],
            "`model.lora.rank` stands before `model`, which changes the class from DPOModule to SFTModule; ",
        ),
    ],
)
def test_an_option_that_stands_before_its_class_on_the_command_line_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["fit", "-c", "base.yaml", *words])
    assert f"lit-align: {said}an option is written after its class" in capsys.readouterr().err


def test_items_of_a_list_are_told_apart() -> None:
    words = [
        "--data.sources+=TATQA", "--data.sources.negatives=BalancedNegatives", "--data.sources.negatives.max_lost=0.1",
        "--data.sources+=TATQA", "--data.sources.negatives=RecipeNegatives",
    ]  # fmt: skip
    assert class_changes(read_given(words)) == []
    [change] = class_changes(read_given([*words, "--data.sources.seed=1", "--data.sources.class_path=PreferenceFile"]))
    assert (change.key, change.before, change.now) == ("data.sources[1]", "TATQA", "PreferenceFile")
    assert [one.path for one in change.lost] == ["data.sources[1].negatives", "data.sources[1].seed"]
