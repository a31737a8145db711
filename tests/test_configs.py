from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from parsing import parsed

from lit_align import cli_names

CONFIGS = Path(__file__).parent.parent / "configs"
# Those of `sample` are in test_sample_cli.py.
ALL = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "sample")
OVERLAYS = [path for path in ALL if path.parent.name == "overlays"]
BASES = [path for path in ALL if path not in OVERLAYS]
LOSSES = [path for path in OVERLAYS if path.stem.startswith("loss-")]  # more in test_loss_overlays.py
_NAMES = {path: path.relative_to(CONFIGS).as_posix() for path in ALL}

every_config = pytest.mark.parametrize("path", ALL, ids=_NAMES.get)
# One loss stands for all: they are many, and the parser of the whole command takes half a second.
every_parsed_config = pytest.mark.parametrize("path", [p for p in ALL if p not in LOSSES[1:]], ids=_NAMES.get)


def _header(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]


def _command(path: Path) -> str:
    return "lit-align validate" if path.parent.name == "eval" else "lit-align fit"


def _words(path: Path) -> list[str]:
    """Arguments of the command that the head of the file gives."""
    [command] = [line.removeprefix("#").split() for line in _header(path) if _command(path) in line]
    words = [str(CONFIGS.parent / word) if word.startswith("configs/") else word for word in command[1:]]
    return words[: words.index("--ckpt_path")] if "--ckpt_path" in words else words  # of an adapter that is not here


@cache
def _parsed(*words: str) -> dict[str, Any]:
    """The same command is parsed once for all tests: it takes half a second."""
    with pytest.MonkeyPatch.context() as patch:
        return parsed(list(words), patch)


def test_the_configurations_are_found() -> None:
    assert {_NAMES[path] for path in BASES} == {
        "chain/quickstart-sft-dpo.yaml", "dpo/quickstart-kto.yaml", "dpo/quickstart-mix.yaml",
        "dpo/quickstart-progressive.yaml", "dpo/qwen3-1.7b-finance-3way.yaml", "dpo/qwen3-1.7b-finance-mix.yaml",
        "dpo/qwen3-1.7b-kto.yaml", "dpo/qwen3-1.7b-progressive.yaml", "dpo/qwen3-1.7b-tatqa-recipe.yaml",
        "dpo/qwen3-1.7b-tatqa.yaml", "dpo/smollm2-135m-mix.yaml", "dpo/smollm2-135m-tatqa-on-policy.yaml",
        "dpo/smollm2-135m-progressive.yaml", "dpo/smollm2-135m-tatqa.yaml", "eval/smollm2-135m-tatqa.yaml",
        "quickstart-dpo.yaml", "quickstart.yaml",
        "sft/quickstart-stream.yaml", "sft/qwen3-1.7b-finance-instruct-stream.yaml",
        "sft/qwen3-1.7b-finance-instruct.yaml", "sft/qwen3-1.7b-twix.yaml",
        "sft/smollm2-135m-tatqa.yaml", "sft/smollm2-135m.yaml",
    }  # fmt: skip
    assert {path.stem for path in OVERLAYS if path not in LOSSES} == {
        "anchor-forward-kl", "anchor-jensen-shannon", "anchor-on-answers", "anchor-target-masked-kl", "bf16",
        "csv-only", "debug", "displacement-guard", "dpo-anchor-chosen", "dpo-anchor-replay", "fp32", "no-anchor",
        "recipe-512", "rehearsal",
    }  # fmt: skip


@every_parsed_config
def test_a_configuration_parses(path: Path) -> None:
    config = _parsed(*_words(path))
    assert config["model"]["class_path"].startswith("lit_align.")
    assert config["data"]["class_path"].startswith("lit_align.")


@pytest.mark.parametrize("path", [p for p in OVERLAYS if p not in LOSSES[1:]], ids=_NAMES.get)
def test_an_overlay_changes_its_base(path: Path) -> None:
    plain = _parsed(*_words(path)[:3])
    changed = _parsed(*_words(path))
    assert {**changed, "config": None} != {**plain, "config": None}


def _found(config: Any, class_name: str) -> list[dict[str, Any]]:
    """Arguments of all objects of a class, at any depth of a file."""
    if isinstance(config, list):
        return [one for part in config for one in _found(part, class_name)]
    if not isinstance(config, dict):
        return []
    own = [config.get("init_args", {})] if config.get("class_path") == class_name else []
    return own + [one for part in config.values() for one in _found(part, class_name)]


@every_config
def test_benchmarks_on_held_out_tables_are_asked_as_training_is(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    data = config.get("data", {}).get("init_args", {})
    callbacks = config.get("trainer", {}).get("callbacks", [])
    pairs, asked = _found(callbacks, "PairAccuracyBenchmark"), _found(callbacks, "TATQABenchmark")
    for benchmark in pairs:
        assert benchmark.get("reference") == config["model"]["init_args"].get("reference")
    stages = data.get("stages", [data])
    sources = [source for stage in stages for source in stage.get("sources", [])]
    pairs = [one for one in pairs if one["source"] in sources]  # the others split by themselves
    for benchmark in [*pairs, *(one for one in asked if one.get("val_fraction") != 1.0)]:
        for key in ("val_fraction", "split_seed"):
            assert benchmark.get(key) == data.get(key)
    assert not pairs or [benchmark["source"] for benchmark in pairs] == sources
    for benchmark in pairs:
        assert benchmark.get("lengths") == data.get("lengths")
    for benchmark in asked if "sources" in data else []:
        source = data["sources"][0]["init_args"]
        for key in ("path", "hub_file", "prompt", "answer", "group"):
            assert benchmark.get(key) == source.get(key)
        lengths = data["lengths"]
        assert benchmark["max_prompt_length"] == lengths.get("max_prompt_length", lengths["max_length"])


FOR_SFT = {"rehearsal"}  # losses are for pairs; the others are for both, and for single answers where no anchor is set
ANCHORS = {path.stem for path in OVERLAYS if "anchor" in path.read_text(encoding="utf-8")}
REPLAYS = {path.stem for path in OVERLAYS if "replay:" in path.read_text(encoding="utf-8")}  # streams mix it in instead


def _module(base: Path) -> str:
    kind: str = yaml.safe_load(base.read_text(encoding="utf-8"))["model"]["class_path"]
    return kind


def _layered() -> list[Any]:
    """Each overlay on a configuration of each module, the configurations in turn: all on all is hundreds of parses."""
    return [
        pytest.param(path, family[number % len(family)], id=f"{_NAMES[path]} on {_NAMES[family[number % len(family)]]}")
        for family in ([b for b in BASES if _module(b) == module] for module in sorted({*map(_module, BASES)}))
        for number, path in enumerate(p for p in OVERLAYS if p not in LOSSES[1:])
    ]


def test_every_configuration_takes_part_in_the_layering() -> None:
    assert {one.values[1] for one in _layered()} == {*BASES}


@pytest.mark.slow
@pytest.mark.parametrize(("path", "base"), _layered())
def test_an_overlay_parses_on_configurations_of_every_module_that_it_is_for(
    path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["fit", "-c", str(base), "-c", str(path)]
    fits = {
        "SFTModule": path not in LOSSES,
        "DPOModule": path.stem not in FOR_SFT,
        "KTOModule": path not in LOSSES and path.stem not in FOR_SFT | ANCHORS,
    }
    stream = "Stream" in yaml.safe_load(base.read_text(encoding="utf-8"))["data"]["class_path"]
    if fits[_module(base)] and not (stream and path.stem in REPLAYS):
        assert parsed(words, monkeypatch)
        return
    with pytest.raises(SystemExit, match="2"):
        parsed(words, monkeypatch)


@every_parsed_config
def test_a_configuration_with_an_unknown_key_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("model: {no_such_key: 1}\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        parsed([*_words(path), "-c", str(wrong)], monkeypatch)
    assert f"unknown key `model.no_such_key` in {wrong}" in capsys.readouterr().err


@every_config
def test_stages_have_their_pairs_and_their_gates_a_benchmark(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    callbacks = config.get("trainer", {}).get("callbacks", [])
    stages = [stage for one in _found(callbacks, "StageTransition") for stage in one["stages"]]
    pairs = config.get("data", {}).get("init_args", {}).get("stages", [])
    assert [stage["name"] for stage in stages] == [stage["name"] for stage in pairs]
    benchmarks = [one for part in _found(callbacks, "BenchmarkEvaluation") for one in part["benchmarks"]]
    names = {one["init_args"].get("name", getattr(cli_names, one["class_path"]).name) for one in benchmarks if stages}
    for gate in (gate for stage in stages for gate in stage["gates"]):
        assert gate["metric"].partition("/")[0] in names


@every_config
def test_a_configuration_leaves_the_base_of_the_data_to_the_model(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8")).get("data", {})
    assert "base" not in {*data, *data.get("init_args", {})}


@every_config
def test_a_configuration_says_what_it_is_for_and_how_it_is_run(path: Path) -> None:
    header = _header(path)
    assert len(header) >= 2
    assert any(_command(path) in line and f"configs/{_NAMES[path]}" in line for line in header), header


@every_config
def test_no_key_of_a_configuration_is_written_twice(path: Path) -> None:
    # PyYAML takes the last of two equal keys without a word.
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    yaml.load(path.read_text(encoding="utf-8"), Loader=Strict)
