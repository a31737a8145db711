"""The real parser on real arguments, without building anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from lit_align.cli import AlignParser


def parsed(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command would run with; a mistake leaves as SystemExit, like from the command itself."""
    from lit_align import cli

    found: list[dict[str, Any]] = []
    with monkeypatch.context() as patch:
        patch.setattr(cli.AlignCLI, "instantiate_classes", lambda self: found.append(self.config.as_dict()))
        patch.setattr(cli.AlignCLI, "_run_subcommand", lambda *_: None)
        patch.setattr("sys.argv", ["lit-align"])
        status = cli.main(words)
    assert status == 0
    config: dict[str, Any] = found[0][words[0]]
    return config


def model_parser() -> AlignParser:
    """The command's parser with the options of the model alone: those of the trainer take most of the time."""
    from lightning.pytorch import LightningModule

    from lit_align.cli import AlignParser

    parser = AlignParser(allow_abbrev=False)
    parser.add_argument("-c", "--config", action="config")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    for key, kind in (
        ("data", dict),
        ("trainer", dict),
        ("name", str),
        ("seed_everything", int),
        ("cpu_threads", int),
        ("audit", dict),
    ):
        parser.add_argument(f"--{key}", type=kind)
    return parser
