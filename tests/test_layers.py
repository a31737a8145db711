"""Imports go downwards only, heavy libraries are not loaded for a help text, and each rule catches a planted breach."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import lit_align

ROOT = Path(lit_align.__file__).parent

# For each room the rooms that it may import; its own files it may always. A room is a folder or a file of lit_align;
# `models.policy` in a row allows that one file of a room.
TENSORS = {"types", "ops"}
RECORDS = {"types", "trie", "forest", "tokenizer"}
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "fit_loop": set(),
    "trie": set(),
    "ops": set(),
    "forest": {"types", "trie"},
    "tokenizer": {"types"},
    "schedule": set(),
    "seeds": set(),
    "rated": {"types"},
    "losses": TENSORS,
    "metrics": {"types"},
    "models": RECORDS | {"ops"},
    "stage": {"losses.preference", "models.loading", "schedule"},  # the settings that modules and callbacks share
    # A rejected answer is one that the metric refuses; the audit tells intervals and languages.
    "data": RECORDS | {"metrics.tat_qa", "metrics.statistics", "metrics.language", "rated", "seeds"},
    # A benchmark renders, splits and tokenises with the functions that do so for training, and trains nothing.
    "evals": RECORDS
    | {"ops", "losses.anchor", "metrics", "models.policy", "models.reference", "models.tree_attention"}
    | {
        f"data.{name}" for name in ("chat", "lengths", "mixture", "pair_tokenising", "sources", "tokenising", "windows")
    },
    "checkpoint": RECORDS | {"models"},
    "environment": set(),
    "callbacks": RECORDS
    | {"losses.preference", "metrics", "models", "data", "evals", "checkpoint", "environment", "stage"},
    "commands": RECORDS | {"ops", "losses", "metrics", "models", "data", "evals", "checkpoint", "environment"},
    "modules": RECORDS | {"ops", "losses", "metrics", "models", "schedule", "seeds", "stage"},
}
ALLOWED["cli_answers"] = {"commands.cache"}  # what the command line answers without a run
ALLOWED["cli_explain"] = {"cli_answers"}
ALLOWED["cli_class_change"] = {"cli_answers"}
ALLOWED["cli_parser"] = {"cli_answers", "cli_class_change", "cli_explain"}
ALLOWED["cli_commands"] = {"cli_answers", "cli_explain", "cli_parser", "commands"}
ALLOWED["cli_names"] = {"callbacks", "data", "evals", "losses", "modules", "schedule"}  # what a configuration may name
ALLOWED["cli_quiet"] = set()
ALLOWED["cli_audit"] = {"callbacks", "cli_quiet", "commands"}
ALLOWED["cli"] = {*ALLOWED}
ALLOWED["__main__"] = {"cli", "cli_answers"}
FREE = {"lit_align", "lit_align.__version__"}  # the package itself

# Inside functions or for annotations only.
HEAVY = {"transformers", "peft", "bitsandbytes", "datasets", "gguf", "openai"}
NEVER = {"trl"}
HEAVY_ROOMS = {"models", "data", "evals", "tokenizer", "commands"}
CLI_ONLY = {"jsonargparse"}
CLI_ROOMS = {"cli", "cli_answers", "cli_class_change", "cli_commands", "cli_explain", "cli_parser"}


@dataclass(frozen=True)
class Import:
    """One imported module, and how it is imported."""

    module: str
    line: int
    at_load: bool  # runs when the importing file is loaded
    annotation: bool  # under TYPE_CHECKING


def imports(source: str) -> list[Import]:
    """All imports of a source text, also those in functions and under TYPE_CHECKING."""

    def walk(nodes: list[ast.stmt] | list[ast.AST], at_load: bool, annotation: bool) -> Iterator[Import]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (Import(alias.name, node.lineno, at_load, annotation) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"line {node.lineno}: a relative import"
                whole = {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "lit_align" else set()
                for name in sorted(whole) or [str(node.module)]:
                    yield Import(name, node.lineno, at_load, annotation)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from walk(node.body, False, True)
                yield from walk(node.orelse, at_load, annotation)
            else:
                inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(list(ast.iter_child_nodes(node)), at_load and not inside, annotation)

    return list(walk(ast.parse(source).body, True, False))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def breaches(path: str, source: str) -> list[str]:
    """What a file of lit_align imports and must not; ``path`` is relative to the package."""
    room = path.removesuffix(".py").split("/")[0]
    if room == "__init__":
        own = [found for found in imports(source) if found.module.startswith("lit_align")]
        return [f"{path}:{found.line} imports {found.module}" for found in own]
    if room not in ALLOWED:
        return [f"{path}: no row for {room} in the table of allowed edges"]
    result = []
    for found in imports(source):
        top = found.module.split(".")[0]
        where = f"{path}:{found.line} imports {found.module}"
        if top == "lit_align":
            target = room_of(found.module)
            allowed = {edge for edge in ALLOWED[room] if edge.split(".")[0] == target}
            exact = any(f"{found.module}.".startswith(f"lit_align.{edge}.") for edge in allowed)
            if target != room and not exact and found.module not in FREE:
                result.append(where)
        elif (
            (top in NEVER)
            or (top in HEAVY and found.at_load)
            or (top in HEAVY and room not in HEAVY_ROOMS and not found.annotation)
            or (top in CLI_ONLY and room not in CLI_ROOMS)
            or (room in {"types", "trie"} and top in {"torch", "lightning"})
        ):
            result.append(where)
    return result


def files() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py"))


def test_every_import_follows_the_table() -> None:
    found = [line for path in files() for line in breaches(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_every_room_has_a_row_and_the_rows_have_no_circle() -> None:
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in files()} - {"__init__"}
    assert rooms <= set(ALLOWED)
    below: dict[str, set[str]] = {}
    left = {room: {edge.split(".")[0] for edge in edges} - {room} for room, edges in ALLOWED.items()}
    while left:
        free = [room for room, edges in left.items() if edges <= below.keys()]
        assert free, f"a circle among {sorted(left)}"
        for room in free:
            below[room] = left.pop(room)


PLANTED = [
    ("modules/sft.py", "from lit_align.data.sft import SFTDataModule"),
    ("modules/base.py", "def f():\n    from lit_align.data import packing"),
    ("modules/base.py", "from lit_align.callbacks.benchmark import BenchmarkCallback"),
    ("callbacks/stages.py", "if TYPE_CHECKING:\n    from lit_align.modules.base import AlignModule"),
    ("callbacks/stages.py", "import lit_align.modules.sft"),
    ("callbacks/stages.py", "from lit_align import modules"),
    ("data/sft.py", "from lit_align.models.policy import Policy"),
    ("data/sources/tat_qa.py", "import lit_align.evals.report as report"),
    ("data/sources/tat_qa/scoring.py", "from lit_align.metrics.win_rate import win_rate"),
    ("losses/anchor.py", "from lit_align.forest import TokenForest"),
    ("ops/frozen_head.py", "from lit_align.losses.anchor import ReverseKL"),
    ("metrics/statistics.py", "from lit_align.models.policy import Policy"),
    ("evals/judge.py", "from lit_align.models.loading import load_base"),
    ("evals/judge.py", "from lit_align.data.packing import WindowPlan"),
    ("types.py", "import torch"),
    ("trie.py", "from lit_align.forest import TokenForest"),
    ("checkpoint.py", "from lit_align.callbacks.checkpoint import Checkpoint"),
    ("commands/sample.py", "from lit_align.modules.base import AlignModule"),
    ("commands/sample.py", "from lit_align.cli import main"),
    ("models/policy.py", "from transformers import AutoModel"),
    ("models/policy.py", "class A:\n    import peft"),
    ("models/policy.py", "try:\n    import bitsandbytes\nexcept ImportError:\n    pass"),
    ("data/sources/hub.py", "import datasets"),
    ("cli.py", "from transformers import set_seed"),
    ("modules/base.py", "def f():\n    import peft"),
    ("models/policy.py", "def f():\n    from jsonargparse import ArgumentParser"),
    ("commands/sample.py", "def f():\n    import trl"),
    ("__init__.py", "from lit_align.modules.sft import SFTModule"),
    ("helpers.py", "import math"),
]


@pytest.mark.parametrize(("path", "source"), PLANTED, ids=[f"{path}: {source}" for path, source in PLANTED])
def test_a_planted_import_is_found(path: str, source: str) -> None:
    assert len(breaches(path, f"from typing import TYPE_CHECKING\n{source}\n")) == 1


def test_what_the_table_allows_is_not_found() -> None:
    source = "from lit_align.data.chat import ChatFormat\nimport lit_align.models.policy\nfrom lit_align import types\n"
    assert breaches("evals/judge.py", source) == []
    late = "def f():\n    import transformers\nif TYPE_CHECKING:\n    from peft import PeftModel\n"
    assert breaches("models/loading.py", late) == []
