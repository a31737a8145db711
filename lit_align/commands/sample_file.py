"""The file of completions: written batch by batch, gone on with after a kill, under its name only when whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from lit_align.checkpoint import write_whole

Line = dict[str, Any]

_FREE = ("path", "name", "url")  # where something lies does not matter


class SampleFile:
    """Completions by prompt and number, collected in ``NAME.jsonl.part``.

    ``NAME.manifest.json`` beside it says what they were drawn with. A batch is one write, so that a kill leaves whole
    lines behind, and perhaps one that broke off, which is cut off.

    Args:
        out: The file that is to be, ``NAME.jsonl``.
        manifest: What the completions are drawn with, in plain types; written at once.
        keys: Prompt id and number of every completion, in the order of the finished file.

    Raises:
        ValueError: The file that is gone on with holds a line that is none of its own.
        OSError: It cannot be written.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> out = Path(folder.name) / "few.jsonl"
        >>> with SampleFile(out, {}, [("a", 0), ("b", 0)]) as file:
        ...     file.append([{"id": "b", "sample": 0, "finished": True, "tokens": 3, "scores": {}}])
        >>> with SampleFile(out, {}, [("a", 0), ("b", 0)]) as file:
        ...     print(sorted(file.done))
        ...     file.append([{"id": "a", "sample": 0, "finished": False, "tokens": 5, "scores": {}}])
        ...     file.finish()["tokens"]
        [1]
        4.0
        >>> [json.loads(line)["id"] for line in out.read_text().splitlines()]
        ['a', 'b']
        >>> folder.cleanup()
    """

    def __init__(self, out: Path, manifest: Mapping[str, Any], keys: Sequence[tuple[str, int]]) -> None:
        self.out, self.part = out, part_of(out)
        self._manifest = dict(manifest)
        self._order = {key: place for place, key in enumerate(keys)}
        self._extents: dict[int, tuple[int, int]] = {}  # of each line in the part: where it begins, where it ends
        self._tally = Tally()
        self._end = 0
        _write_whole(manifest_of(out), _as_json(self._manifest))
        self._file: BinaryIO = self.part.open("r+b" if self.part.exists() else "w+b", buffering=0)
        try:
            self._read_present()
        except ValueError:
            self._file.close()
            raise

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def done(self) -> set[int]:
        """Places in the finished file of the completions that are there."""
        return set(self._extents)

    def saved(self) -> int:
        """Whole lines on disk: after Ctrl-C one batch more than :attr:`done` may be there."""
        with self.part.open("rb") as stream:
            return sum(line.endswith(b"\n") for line in stream)

    def append(self, lines: Sequence[Line]) -> None:
        """Save a batch.

        Args:
            lines: Completions that are not there yet.

        Raises:
            OSError: The disk is full or gone; what was saved before stays whole.
        """
        texts = [(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n").encode() for line in lines]
        start = self._end
        try:
            self._file.seek(start)
            left = memoryview(b"".join(texts))
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            raise OSError(
                error.errno, f"{self.part} could not be written ({error.strerror}); the completions before are whole"
            ) from error
        for line, text in zip(lines, texts, strict=True):
            self._enter(line, len(text))

    def finish(self) -> dict[str, Any]:
        """Put the completions into their order under the final name.

        Returns:
            Their number ``n``, the share ``unfinished``, mean ``tokens``, and by name of the metric the mean and
            number of ``scores``; the manifest has it as ``summary``.

        Raises:
            OSError: As of :meth:`append`.
        """
        assert len(self._extents) == len(self._order), "completions are missing"
        summary = self._tally.summary()
        _write_whole(manifest_of(self.out), _as_json({**self._manifest, "summary": summary}))
        _write_whole(self.out, map(self._text, range(len(self._order))))
        self._file.close()
        self.part.unlink()
        return summary

    def summary(self) -> dict[str, Any]:
        """As of :meth:`finish`, of the completions so far."""
        return self._tally.summary()

    def _text(self, place: int) -> bytes:
        start, end = self._extents[place]
        self._file.seek(start)
        return self._file.read(end - start)

    def _read_present(self) -> None:
        with self.part.open("rb") as stream:
            for number, text in enumerate(stream, start=1):
                if not text.endswith(b"\n"):  # a write that was broken off
                    break
                try:
                    self._enter(json.loads(text), len(text))
                except (ValueError, KeyError, TypeError) as error:  # no JSON, or not of our keys
                    raise ValueError(
                        f"{self.part}:{number}: is no completion of this run ({error}); delete the file to begin anew"
                    ) from error
        self._file.truncate(self._end)

    def _enter(self, line: Line, size: int) -> None:
        place = self._order.get((line["id"], line["sample"]))
        if place is None or place in self._extents:
            raise ValueError(f"{line['id']!r}, sample {line['sample']}: {'twice' if place is not None else 'unknown'}")
        self._extents[place] = (self._end, self._end + size)
        self._end += size
        self._tally.count(line)


class Tally:
    """Running sums over completions."""

    def __init__(self) -> None:
        self._n = self._unfinished = self._tokens = 0
        self._scores: dict[str, tuple[float, int]] = {}

    def count(self, line: Line) -> None:
        """Add a completion."""
        self._n += 1
        self._unfinished += not line["finished"]
        self._tokens += line["tokens"]
        for name, score in line["scores"].items():
            total, n = self._scores.get(name, (0.0, 0))
            self._scores[name] = (total + score, n + 1)

    def summary(self) -> dict[str, Any]:
        """See :meth:`SampleFile.finish`."""
        n = max(self._n, 1)
        return {
            "n": self._n,
            "unfinished": self._unfinished / n,
            "tokens": self._tokens / n,
            "scores": {name: {"mean": total / count, "n": count} for name, (total, count) in self._scores.items()},
        }


def part_of(out: Path) -> Path:
    """Where completions are collected."""
    return out.with_name(f"{out.name}.part")


def manifest_of(out: Path) -> Path:
    """Where it is written what completions were drawn with."""
    return out.with_name(f"{out.name.removesuffix('.jsonl')}.manifest.json")


def read_manifest(out: Path) -> dict[str, Any] | None:
    """The manifest of completions that are there, whole or in part; None where there are none.

    Raises:
        ValueError: There are completions, and no manifest or one that is no JSON.
    """
    there = [path for path in (out, part_of(out)) if path.exists()]
    if not there:
        return None
    file = manifest_of(out)
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"{there[0]} is there, and {file.name} is not, which says what it was drawn with: name another `out`, or "
            f"delete {there[0].name}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{file}: is no JSON ({error}); name another `out`, or delete it and {there[0]}") from error
    if not isinstance(manifest, dict):
        raise ValueError(f"{file}: must hold keys, holds {type(manifest).__name__}; name another `out`")
    return manifest


def refuse_other_manifest(out: Path, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to mix completions that are drawn with different things.

    Args:
        out: The file that they are for.
        was: Manifest of those that are there.
        now: That of those that are to come; what only one of the two has is not compared, nor where something lies.

    Raises:
        ValueError: Names all that differs and what to do.
    """
    before, after = _flat(was), _flat(json.loads(json.dumps(now)))
    differing = [
        f"`{key}` was {before[key]!r} and is {after[key]!r}"
        for key in after
        if key in before and before[key] != after[key] and key.rpartition(".")[2] not in _FREE
    ]
    if differing:
        there = out if out.exists() else part_of(out)
        raise ValueError(
            f"{there} was drawn with other settings: {', '.join(differing)}; name another `out`, or delete "
            f"{there.name} and {manifest_of(out).name}"
        )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        # With their number: else one list might be the beginning of the other.
        value = {"n": len(value), **{str(number): one for number, one in enumerate(value)}}
    if not isinstance(value, dict):
        return {key: value}
    return {name: one for part in value for name, one in _flat(value[part], f"{key}.{part}".strip(".")).items()}


def _as_json(value: Mapping[str, Any]) -> list[bytes]:
    return [(json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()]


def _write_whole(path: Path, parts: Iterable[bytes]) -> None:
    try:
        write_whole(path, parts)
    except OSError as error:
        raise OSError(error.errno, f"{path} could not be written ({error.strerror}); free space and go on") from error
