"""Time and memory of making pairs of a Reddit file as large as the real one.

The file is generated with the statistics of reddit_finance_43_250k: 250,000 rows of 2,720 bytes, one to three comments
a post (75,286 posts have two or more), scores scaled over their subreddits, rows sorted by the combined score. The
texts are random words, an eighth of them with characters outside Latin-1, which cost Python two bytes a character.
Each source reads it in a process of its own.

    python -m benchmarks reddit-pairs --rows 10000
"""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.measuring import NO_BARS, ONE_THREAD, in_own_process, machine, versions
from lit_align.data.sources.reddit_pairs import ByRank, RedditFinancePairs
from lit_align.data.sources.reddit_recipe import RecipeRedditPairs
from lit_align.types import PairSource

REAL_ROWS = 250_000
GOAL_SECONDS, GOAL_BYTES = 120.0, 2 * 2**30
# Posts of a million rows by their number of comments: 75,286 of 250,000 rows' posts have two or three.
COMMENTS = {1: 0.4507, 2: 0.2746, 3: 0.2747}
SUBREDDITS = {
    "Superstonk": 30.3, "personalfinance": 16.3, "investing": 13.6, "fatFIRE": 11.9, "AusFinance": 11.3,
    "wallstreetbets": 5.4, "povertyfinance": 5.0, "stocks": 5.0, "Bogleheads": 3.0, "options": 2.0,
}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What reading the file took.

    Attributes:
        pairs: That were made.
        seconds: Of the wall clock.
        peak: Largest resident set in bytes, interpreter and packages included.
    """

    pairs: int
    seconds: float
    peak: int


def write_file(path: Path, rows: int, seed: int = 0) -> None:
    """Write a file like the real one.

    Args:
        path: Where to.
        rows: How many.
        seed: Of everything that is random.
    """
    rng = Random(seed)
    words = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 9))) for _ in range(4000)]
    plain = " ".join(rng.choices(words, k=200_000))
    wide = " ".join(f"{one}’s" if rng.random() < 0.05 else one for one in rng.choices(words, k=200_000))
    names, weights = list(SUBREDDITS), list(SUBREDDITS.values())
    drawn: list[tuple[float, int, int, str, float, float]] = []
    post = 0
    while len(drawn) < rows:
        subreddit = rng.choices(names, weights)[0]
        liked = min(1.0, rng.lognormvariate(-4, 1.5))
        for number in range(rng.choices(list(COMMENTS), list(COMMENTS.values()))[0]):
            score = min(1.0, rng.lognormvariate(-4, 1.5))
            drawn.append((liked + score, post, number, subreddit, liked, score))
        post += 1
    drawn = sorted(drawn[:rows], reverse=True)

    def text(key: str, least: int, mean: int) -> str:
        own = Random(f"{seed}/{key}")  # the same in each row of a post
        size = least + int(own.expovariate(1 / (mean - least)))
        start = own.randrange(len(plain) - 40_000)
        return (wide if own.random() < 0.125 else plain)[start : start + min(size, 40_000)]

    with path.open("w", encoding="utf-8") as stream:
        for combined, post, number, subreddit, liked, score in drawn:
            row = {
                "id": f"t{post:07x}", "title": text(f"title {post}", 20, 60), "selftext": text(f"{post}", 150, 1610),
                "z_score": 10 * liked, "normalized_score": liked, "subreddit": subreddit,
                "body": text(f"{post} {number}", 200, 720), "comment_normalized_score": score,
                "combined_score": combined,
            }  # fmt: skip
            stream.write(json.dumps(row) + "\n")


def read(source: PairSource) -> Reading:
    """Make all pairs of a source in this process.

    Args:
        source: Of the file.
    """
    start = time.perf_counter()
    pairs = source.pairs(lambda _: True)
    seconds = time.perf_counter() - start
    return Reading(len(pairs), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def report(command: str, rows: int, size: int, readings: dict[str, Reading]) -> str:
    """The page.

    Args:
        command: What was run.
        rows: Of the file.
        size: Bytes of the file.
        readings: By name of the source.
    """
    found = versions(["pyarrow"])
    facts = [*machine().values(), *(f"{name} {number}" for name, number in found.items())]
    judged = rows == REAL_ROWS
    lines = [
        f"| {name} | {one.pairs:,} | {one.seconds:.1f} | {one.peak / 2**20:,.0f} | "
        f"{('met' if one.seconds < GOAL_SECONDS and one.peak < GOAL_BYTES else 'missed') if judged else ''} |"
        for name, one in readings.items()
    ]
    table = "\n".join(lines)
    return f"""\
# Pairs of a Reddit file

{rows:,} generated rows, {size / 1e6:,.0f} MB ({size / rows:,.0f} bytes a row; the real file: 2,720). Goal at \
{REAL_ROWS:,} rows: under {GOAL_SECONDS:.0f} s and {GOAL_BYTES / 2**20:,.0f} MiB.

| source | pairs | seconds | peak, MiB | goal |
|:--|--:|--:|--:|:--|
{table}

*Seconds of the wall clock, each source in a process of its own, one thread; the peak holds interpreter, packages and \
the finished pairs. {", ".join(facts)}. `{command}`*
"""


def main(words: Sequence[str]) -> None:
    """Run the command.

    Args:
        words: Its options.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks reddit-pairs", description=__doc__)
    parser.add_argument("--rows", type=int, default=REAL_ROWS, help="rows of the generated file")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the page")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "top.jsonl"
        write_file(path, options.rows)
        sources: dict[str, PairSource] = {
            "RedditFinancePairs": RedditFinancePairs(str(path)),
            "ByRank, three pairs a post": RedditFinancePairs(str(path), rule=ByRank(), pairs_per_post=3),
            "RecipeRedditPairs, all": RecipeRedditPairs(str(path), sample_rate=1.0),
        }
        readings = {name: in_own_process({**ONE_THREAD, **NO_BARS}, read, source) for name, source in sources.items()}
        command = f"python -m benchmarks reddit-pairs {shlex.join(words)}".rstrip()
        page = report(command, options.rows, path.stat().st_size, readings)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "reddit-pairs.md").write_text(page, encoding="utf-8")
    print(page)
