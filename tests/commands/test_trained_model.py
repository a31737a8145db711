"""What a model was trained as is read from its run, and an adapter that lies on another one is not taken alone."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from saved_adapters import save_adapter

from lit_align.commands.trained_model import trained_model
from lit_align.models.loading import Weights

UNDECIDED = "package:lit_align/assets/tiny_qwen3_undecided"
FROZEN = "lit_align.models.reference.FrozenAdapterReference"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return [Path(save_adapter(folder / str(seed), seed, rank=1)) for seed in range(3)]


def run(name: str, adapter: Path, reference: Any = None, precision: Any = None, **names: Path) -> Path:
    """The folder of a finished run."""
    folder = Path("lightning_logs", name, "version_0")
    shutil.copytree(adapter, folder / "adapter")
    for extra, path in names.items():
        shutil.copytree(path, folder / extra.replace("_", "-"))
    options = {"base": "tiny-qwen3", "weights": {"dtype": "float32", "quantization": "nf4"}, "reference": reference}
    config = {"model": {"class_path": "DPOModule", "init_args": options}, "trainer": {"precision": precision}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def frozen(path: Any, **options: Any) -> dict[str, Any]:
    return {"class_path": FROZEN, "init_args": {"path": path, **options}}


@pytest.mark.parametrize(("held", "precision"), [(None, "32-true"), (32, "32-true"), ("bf16-mixed", "bf16-mixed")])
def test_base_and_number_formats_are_those_of_the_run(held: Any, precision: str, adapters: list[Path]) -> None:
    folder = run("a", adapters[0], precision=held)
    found = trained_model([str(folder / "adapter")], "", None, None)
    assert (found.base, found.weights, found.precision) == ("tiny-qwen3", Weights("float32", "nf4"), precision)
    shutil.copytree(adapters[0], folder / "checkpoints" / "last")
    (folder / "checkpoints" / "last.ckpt").touch()
    assert trained_model([str(folder / "checkpoints" / "last.ckpt")], "", None, None).weights == found.weights


def test_what_is_given_goes_before_and_what_differs_is_said(
    adapters: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    path = str(run("a", adapters[0]) / "adapter")
    found = trained_model([path], "tiny-qwen3", Weights(), "32-true")
    assert found.weights == Weights()
    assert len(caplog.records) == 1
    assert f"`weights` is {Weights()}, and adapter {path} was trained with {Weights('float32', 'nf4')}" in caplog.text


def test_an_adapter_from_elsewhere_needs_base_and_weights(adapters: list[Path]) -> None:
    Path("config.yaml").write_text("trainer: {}", encoding="utf-8")  # of something else
    path = str(shutil.copytree(adapters[0], "adapter"))
    for base, weights, key in (("", Weights(), "base"), ("tiny-qwen3", None, "weights")):
        with pytest.raises(ValueError, match=f"`{key}` must be given: adapter adapter does not lie in"):
            trained_model([path], base, weights, None)
    assert trained_model([path], "tiny-qwen3", Weights(), None).precision == "32-true"


@pytest.mark.parametrize("nested", [False, True])
def test_an_adapter_is_not_taken_without_those_that_it_was_trained_on(nested: bool, adapters: list[Path]) -> None:
    first = run("first", adapters[0]) / "adapter"
    reference = frozen(str(first))
    top = run("top", adapters[1], {"class_path": "X", "init_args": {"of": reference}} if nested else reference)
    with pytest.raises(ValueError, match=r"was trained on top of .*first.*: `adapters` must name .*first.* before it"):
        trained_model([str(top / "adapter")], "", None, None)
    with pytest.raises(ValueError, match="was trained on top of"):
        trained_model([str(top / "adapter"), str(first)], "", None, None)
    with pytest.raises(ValueError, match="was trained on top of"):
        trained_model([str(adapters[2]), str(top / "adapter")], "", None, None)
    for below in (first, adapters[0]):  # there or a copy of it
        found = trained_model([str(below), str(top / "adapter")], "", None, None)
        assert [one.path for one in found.folders] == [str(below), str(top / "adapter")]


def test_an_adapter_that_was_continued_is_complete_by_itself(adapters: list[Path]) -> None:
    first = run("first", adapters[0]) / "adapter"
    top = run("top", adapters[1], frozen(str(first), init="continue"))
    assert len(trained_model([str(top / "adapter")], "", None, None).folders) == 1
    two = run("two", adapters[1], frozen([str(first), str(adapters[2])], init="continue"))
    with pytest.raises(ValueError, match=r"was trained on top of .*first"):
        trained_model([str(two / "adapter")], "", None, None)
    assert len(trained_model([str(first), str(two / "adapter")], "", None, None).folders) == 2


def test_an_adapter_of_a_package_is_known_by_what_it_holds(
    adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(adapters[0], Path("packages", "of_adapters", "one"))
    Path("packages", "of_adapters", "__init__.py").touch()
    monkeypatch.syspath_prepend(str(Path("packages").absolute()))
    top = run("top", adapters[1], frozen(UNDECIDED))
    for other in (str(adapters[0]), "package:of_adapters/one"):
        with pytest.raises(ValueError, match="was trained on top of package:lit_align"):
            trained_model([other, str(top / "adapter")], "", None, None)
    assert len(trained_model([UNDECIDED, str(top / "adapter")], "", None, None).folders) == 2


def test_an_adapter_below_that_was_moved_may_be_the_one_that_is_named(
    adapters: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lit_align")
    top = str(run("top", adapters[1], frozen("gone/adapter")) / "adapter")
    with pytest.raises(ValueError, match="was trained on top of gone/adapter"):
        trained_model([top], "", None, None)
    assert len(trained_model([str(adapters[0]), top], "", None, None).folders) == 2
    assert "gone/adapter is no longer there, so it is not compared" in caplog.text


def test_a_stage_needs_the_stages_below_it(adapters: list[Path]) -> None:
    folder = run("staged", adapters[1], None, adapter_a=adapters[0], adapter_b=adapters[1], adapter_c=adapters[2])
    stages = [
        {"adapter": "adapter-a", "below": [], "policy": ["adapter-a"]},
        {"adapter": "adapter-b", "below": ["adapter-a"], "policy": ["adapter-a", "adapter-b"]},
    ]
    (folder / "stages.json").write_text(json.dumps({"start": [], "stages": stages}), encoding="utf-8")
    a, b, c, last = (str(folder / name) for name in ("adapter-a", "adapter-b", "adapter-c", "adapter"))
    assert len(trained_model([a], "", None, None).folders) == 1
    for top in (b, last):  # the same one
        assert trained_model([a, top], "", None, None).weights == Weights("float32", "nf4")
        with pytest.raises(ValueError, match="was trained on top of adapter-a"):
            trained_model([top], "", None, None)
    with pytest.raises(ValueError, match=r"what none of them ended with: .* name .*adapter-a, .*adapter-b"):
        trained_model([a, c], "", None, None)


def test_a_broken_config_of_the_run_is_named(adapters: list[Path]) -> None:
    folder = run("a", adapters[0])
    (folder / "config.yaml").write_text("model: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml: no YAML in UTF-8"):
        trained_model([str(folder / "adapter")], "", None, None)
