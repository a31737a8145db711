"""The points of the curves, what is expected of them, and the command on two points of a model of one layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.growth import command
from benchmarks.growth.command import main, table
from benchmarks.growth.sweeps import SWEEPS, Point, expected_megabytes, expected_seconds

FIRST, LAST = Point(1, 100, 10, 2.0, 5 * 10**9, 0.6, 40.0), Point(2, 300, 10, 4.0, 20 * 10**9, 2.0, 90.0)


def test_expected_goes_through_the_last_point() -> None:
    assert expected_seconds([FIRST, LAST]) == [0.5, 2.0]
    assert expected_megabytes([FIRST, LAST]) == [30.0, 90.0]


def test_expected_stands_beside_measured() -> None:
    assert table("x", [FIRST, LAST]).splitlines()[2:] == [
        "| 1 | 100 | 10 | 5.0 | 0.600 | 0.500 | 40 | 30 | 2 |",
        "| 2 | 300 | 10 | 20.0 | 2.000 | 2.000 | 90 | 90 | 4 |",
    ]


@pytest.mark.parametrize("sweep", SWEEPS[:3] + SWEEPS[4:], ids=lambda sweep: sweep.name)
def test_tokens_are_linear_in_what_is_varied(sweep: object) -> None:
    first, second, last = (len(sweep.rows(value).window().forests[0]) for value in (2, 4, 8))  # type: ignore[attr-defined]
    assert last - second == 2 * (second - first) > 0


def test_the_vocabulary_adds_no_token() -> None:
    vocabulary = SWEEPS[3]
    sizes = {len(vocabulary.rows(value).window().forests[0]) for value in vocabulary.values}
    assert len(sizes) == 1
    assert vocabulary.values[-1] == 151_936


@pytest.mark.slow
def test_the_command_writes_table_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "SWEEPS", SWEEPS[:1])  # each takes two processes
    main(["--rounds", "1", "--points", "2", "--hidden", "32", "--layers", "1", "--output", str(tmp_path)])
    assert capsys.readouterr().out == (tmp_path / "growth.md").read_text() + "\n"
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    sweeps = json.loads((tmp_path / "growth.json").read_text())["sweeps"]
    assert list(sweeps) == [SWEEPS[0].name]
    for points in sweeps.values():
        first, last = points
        assert 0 < first["flops"] < last["flops"]
        assert min(point["seconds"] for point in points) > 0
        assert min(point["megabytes"] for point in points) > 0


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(SystemExit, match="--rounds must be at least 1 and --points 2, got 1 and 1"):
        main(["--rounds", "1", "--points", "1"])
