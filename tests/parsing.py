"""The real parser on real arguments, without building anything."""

from __future__ import annotations

from typing import Any

import pytest


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
