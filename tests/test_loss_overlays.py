"""Every preference loss has an overlay, which means the same on every configuration of preference training."""

from __future__ import annotations

import csv
import inspect
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from parsing import model_parser
from safetensors.torch import load_file

from lit_align.losses import preference
from lit_align.losses.preference import PreferenceLoss
from tests.losses.preference.table import two_pairs

if TYPE_CHECKING:
    from lit_align.cli import AlignParser

CONFIGS = Path(__file__).parent.parent / "configs"
OVERLAYS = sorted((CONFIGS / "overlays").glob("loss-*.yaml"))
_MODELS = {path: yaml.safe_load(path.read_text(encoding="utf-8")).get("model", {}) for path in CONFIGS.rglob("*.yaml")}
# One for each setting of the loss: what an overlay gives depends on nothing else of its base.
BASES = [
    *{
        repr(model["init_args"].get("loss")): path
        for path, model in sorted(_MODELS.items())
        if model.get("class_path") == "DPOModule"
    }.values()
]

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)


def _named(overlay: Path) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load(overlay.read_text(encoding="utf-8"))["model"]["init_args"]["loss"]
    return content


@pytest.fixture(scope="module")
def parser() -> AlignParser:
    return model_parser()


def test_every_loss_has_one_overlay_that_bears_its_name() -> None:
    offered = [getattr(preference, name) for name in preference.__all__]
    classes = {one for one in offered if issubclass(one, PreferenceLoss) and not inspect.isabstract(one)}
    assert {one.__name__ for one in classes} == {_named(overlay)["class_path"] for overlay in OVERLAYS}
    for overlay in OVERLAYS:
        name = overlay.stem.removeprefix("loss-").replace("-", "")
        assert name == str(_named(overlay)["class_path"]).lower().removesuffix("loss")


@every_overlay
def test_an_overlay_says_in_one_line_what_it_is_from_which_paper_and_when(overlay: Path) -> None:
    said, command = overlay.read_text(encoding="utf-8").splitlines()[:2]
    assert command == f"#   lit-align fit -c configs/dpo/qwen3-1.7b-tatqa.yaml -c configs/overlays/{overlay.name}"
    assert "arXiv 2" in said or overlay.stem == "loss-chosen-nll"
    assert said.count(":") == 1


@every_overlay
def test_an_overlay_gives_the_same_loss_on_bases_with_any_loss(overlay: Path, parser: AlignParser) -> None:
    made = []
    for base in BASES:
        config = parser.parse_args(["-c", str(base), "-c", str(overlay)])
        made.append(parser.instantiate(config).model.loss)
    assert len(made) >= 3
    assert len({repr(loss) for loss in made}) == 1, "an option of the base's loss leaked into it"
    assert type(made[0]).__name__ == _named(overlay)["class_path"]
    values = made[0](two_pairs())
    assert values.shape == (2,)
    assert bool(values.isfinite().all())


@pytest.mark.slow
@every_overlay
def test_an_overlay_trains(overlay: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from lit_align.cli import main

    rows = [
        {"prompt": f"Give profit {year} .", "chosen": f"{year}7 in million.", "rejected": f"{year}7.", "table": "t"}
        for year in range(2015, 2021)
    ]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = {"class_path": "PreferenceFile", "init_args": {"path": "pairs.jsonl"}}
    run = {
        "cpu_threads": 1,
        "model": {
            "class_path": "DPOModule",
            "init_args": {
                "weights": {"dtype": "float32"},
                "loss": {"class_path": "SigmoidLoss", "init_args": {"beta": 0.37}},
                "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
            },
        },
        # Several forests a window, so that coupled pairs are coupled over forests.
        "data": {"class_path": "PreferenceDataModule", "init_args": {"sources": [source], "window": 3}},
        "trainer": {"accelerator": "cpu", "max_steps": 2, "enable_progress_bar": False},
    }
    run["data"]["init_args"]["token_budget"] = 64  # type: ignore[index]
    Path("run.yaml").write_text(yaml.safe_dump(run), encoding="utf-8")
    assert main(["fit", "-c", "run.yaml", "-c", str(overlay)]) == 0, capfd.readouterr().err
    version = Path("lightning_logs/lit_align/version_0")
    with (version / "metrics.csv").open(encoding="utf-8") as file:
        found = [float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert len(found) == 2
    assert all(map(math.isfinite, found))
    adapter = load_file(version / "adapter" / "adapter_model.safetensors")
    assert max(float(tensor.abs().max()) for name, tensor in adapter.items() if "lora_B" in name) > 0
