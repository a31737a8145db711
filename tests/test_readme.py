from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from parsing import parsed

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def _text() -> str:
    return README.read_text(encoding="utf-8") if README.exists() else ""


def _commands() -> list[str]:
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", _text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        line.strip().removeprefix("$ ") for line in lines if line.strip().removeprefix("$ ").startswith("lit-align ")
    ]


def _paths() -> list[str]:
    """Files and folders of the repository that the text names."""
    folders = "|".join(sorted(entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name[0] not in "._"))
    named = re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./-]*\w/?", _text())
    linked = [link for link in re.findall(r"\]\(([^)#\s]+)", _text()) if "://" not in link]
    return sorted({path for path in [*named, *linked] if not path.startswith(("lightning_logs", "samples"))})


def test_the_readme_names_commands_and_files() -> None:
    assert README.is_file()
    assert _commands()
    assert _paths()


@pytest.mark.parametrize("command", _commands())
def test_a_command_of_the_readme_parses(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lit_align import cli

    words = shlex.split(command, comments=True)[1:]
    if words[0].startswith("-") or words[0] == "cache":  # in an empty folder
        assert cli.main(words) == 0
        return
    monkeypatch.chdir(ROOT)
    if words[0] in ("sample", "export", "calibrate", "audit"):
        words.append("--print_config")
    if {"--help", "--print_config"} & set(words):
        with pytest.raises(SystemExit, match="0"):
            cli.main(words)
    else:
        assert parsed(words, monkeypatch)


@pytest.mark.parametrize("path", _paths())
def test_a_path_of_the_readme_exists(path: str) -> None:
    assert (ROOT / path).exists()
