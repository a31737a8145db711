"""The scored benchmarks on a real model: by the command from a YAML file, and on two ranks as on one."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml
from command import small
from in_process import fit
from word_scorer import WordScorer

from lit_align.data.chat import ChatFormat
from lit_align.evals.answering import Generation
from lit_align.evals.mt_bench import MTBenchBenchmark
from lit_align.evals.sampling import Sampling
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow

BENCHMARKS = """
- class_path: MTBenchBenchmark
  init_args:
    name: mt-bench-chooses
    path: questions.jsonl
    scorer: {class_path: word_scorer.WordScorer}
    questions: {n: 2, seed: 0}
    generation: {max_new_tokens: 4}
- class_path: MTBenchBenchmark
  init_args:
    name: mt-bench
    path: questions.jsonl
    scorer: {class_path: word_scorer.WordScorer}
    questions: {n: 2, seed: 0, part: rest}
    generation: {max_new_tokens: 4}
- class_path: FinanceInstructBenchmark
  init_args:
    scorer: {class_path: word_scorer.WordScorer}
    source: {path: finance.jsonl}
    val_fraction: 1.0
    threshold: {measure: score, least: 2}
    generation: {max_new_tokens: 4}
- class_path: RedditReplyBenchmark
  init_args:
    scorer: {class_path: word_scorer.WordScorer}
    source: {path: reddit.jsonl}
    val_fraction: 1.0
    generation: {max_new_tokens: 4}
- class_path: ScoredAnswersBenchmark
  init_args:
    scorer: {class_path: word_scorer.WordScorer}
    source: {class_path: FinanceInstruct, init_args: {path: finance.jsonl}}
    val_fraction: 1.0
    generation: {max_new_tokens: 4}
"""
FINANCE = [{"system": "", "user": f"What is {n} %?", "assistant": "A share."} for n in range(3)]
REDDIT = [{"id": "p", "title": "Sell?", "selftext": "", "subreddit": "investing", "body": "No.",
           "comment_normalized_score": 0.3}]  # fmt: skip


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def questions(folder: Path) -> str:
    kinds = ("math", "writing")
    rows = [{"question_id": n, "category": kinds[n % 2], "turns": [f"Add {n}.", "And 1?"]} for n in range(6)]
    return write(folder / "questions.jsonl", rows)


def test_the_command_runs_them_before_and_after(tmp_path: Path) -> None:
    questions(tmp_path)
    write(tmp_path / "finance.jsonl", FINANCE)
    write(tmp_path / "reddit.jsonl", REDDIT)
    callback = {"class_path": "BenchmarkEvaluation", "init_args": {"benchmarks": yaml.safe_load(BENCHMARKS)}}

    assert fit(small(trainer={"max_steps": 1, "enable_progress_bar": False, "callbacks": [callback]})) == 0

    lines = Path("lightning_logs/run/version_0/benchmarks.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    before = {(one["benchmark"], one["id"]): one for one in items if one["phase"] == "before"}
    asked = {name: [id for benchmark, id in before if benchmark == name] for name, _ in before}
    assert (len(asked["mt-bench-chooses"]), len(asked["mt-bench"])) == (4, 8)
    assert not set(asked["mt-bench-chooses"]) & set(asked["mt-bench"])
    assert (len(asked["finance-instruct"]), asked["reddit-reply"], len(asked["scored-answers"])) == (3, ["p"], 3)
    assert "success" in before["finance-instruct", "finance.jsonl:1"]["scores"]


SAMPLED = Generation(6, batch_size=2, sampling=Sampling(1.0), seed=3)


def run_benchmark(path: str) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = Policy("tiny-qwen3", Weights("float32"), LoRA(rank=2), "tree_sdpa")
    benchmark = MTBenchBenchmark(WordScorer(), path, generation=SAMPLED)
    results = benchmark.run(policy, ChatFormat(load_tokenizer("tiny-qwen3")))
    return [{"id": one.id, "answer": one.answer, "scores": one.scores} for one in results]


def _rank(rank: int, path: str, store: str, out: str) -> None:
    dist.init_process_group("gloo", f"file://{store}", timedelta(seconds=120), 2, rank)
    try:
        Path(f"{out}.{rank}").write_text(json.dumps(run_benchmark(path)), encoding="utf-8")
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over a file")
def test_two_ranks_measure_as_one(tmp_path: Path) -> None:
    path, out = questions(tmp_path), str(tmp_path / "out")

    torch.multiprocessing.spawn(_rank, (path, str(tmp_path / "store"), out), nprocs=2)

    parts = [json.loads(Path(f"{out}.{rank}").read_text(encoding="utf-8")) for rank in range(2)]
    assert parts[0] == parts[1] == run_benchmark(path)
