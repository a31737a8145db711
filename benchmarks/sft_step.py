"""One SFT step with the reverse-KL anchor: ours beside the naive form, on the same rows and the same adapter.

The naive form is what a user writes first: a padded batch, full logits of policy and base, log-softmax of both. It is a
check of equality and a yardstick of memory, no peer: a comparison with TRL's kernels belongs to the peer benchmark.

    python -m benchmarks.sft_step --base FOLDER --data chat.jsonl --rows 8 --max-length 512

Each form runs in a process of its own: peak memory is the high-water mark of the resident set above that before the
step (Linux).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_align.data.chat import ChatFormat
from lit_align.data.lengths import Lengths
from lit_align.data.sources.messages_file import MessagesFile
from lit_align.forest import TokenForest, TokenPath, Window
from lit_align.losses.anchor import KLAnchor
from lit_align.models.loading import LoRA, Weights
from lit_align.models.policy import Policy
from lit_align.models.reference import BaseReference
from lit_align.modules.sft import SFTModule
from lit_align.tokenizer import load_tokenizer

COEFFICIENT = 0.03


def read_paths(options: argparse.Namespace) -> list[TokenPath]:
    """The first rows that fit."""
    chat = ChatFormat(load_tokenizer(options.base))
    lengths = Lengths(max_length=options.max_length, overlong="cut")
    paths: list[TokenPath] = []
    for conversation in MessagesFile(options.data).conversations():
        path, _ = lengths.fit(chat.paths(conversation, "last")[0])
        if path is not None:
            paths.append(path)
        if len(paths) == options.rows:
            return paths
    raise ValueError(f"{options.data} has {len(paths)} rows that fit, {options.rows} are needed")


def build(options: argparse.Namespace) -> SFTModule:
    """A module whose adapter does something."""
    module = SFTModule(options.base, anchor=KLAnchor(coef=COEFFICIENT))
    module.policy = Policy(options.base, Weights(dtype=options.dtype), LoRA(rank=8, alpha=16), "tree_sdpa")
    generator = torch.Generator().manual_seed(1)
    for name, parameter in module.policy.adapter_parameters().items():
        spread = 0.02 if "lora_B" in name else parameter.shape[1] ** -0.5
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return module


def ours(module: SFTModule, paths: list[TokenPath]) -> Tensor:
    """The module's own loss of a window of one forest."""
    forest = TokenForest.build([[path] for path in paths])
    loss, _ = module.forest_loss(forest, module.counts(Window((forest,), 0, ())), step=0)
    torch.autograd.backward(loss)
    return loss.detach()


def naive(module: SFTModule, paths: list[TokenPath]) -> Tensor:
    """Padded, full logits, two forwards."""
    model: Any = module.policy.causal_lm
    longest = max(len(path.tokens) for path in paths)
    ids = torch.zeros(len(paths), longest, dtype=torch.long)
    wanted = torch.zeros(len(paths), longest, dtype=torch.bool)
    mask = torch.zeros(len(paths), longest, dtype=torch.long)
    for row, path in enumerate(paths):
        n = len(path.tokens)
        ids[row, :n], mask[row, :n] = torch.from_numpy(path.tokens.astype("int64")), 1
        wanted[row, :n] = torch.from_numpy(path.classes == 1)
    with BaseReference().active(module.policy):
        reference = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    at = wanted[:, 1:]
    log_p, log_q = logits.float().log_softmax(-1), reference.float().log_softmax(-1)
    nll: Tensor = -log_p.gather(-1, ids[:, 1:, None])[..., 0][at].mean()
    loss: Tensor = nll + COEFFICIENT * (log_p.exp() * (log_p - log_q)).sum(-1)[at].mean()
    torch.autograd.backward(loss)
    return loss.detach()


FORMS = {"ours": ours, "naive": naive}


def measure(form: str, options: argparse.Namespace, folder: str) -> None:
    """Run a form in this process; leave loss, gradients, seconds and memory in ``folder``."""
    torch.set_num_threads(options.threads)
    paths, module = read_paths(options), build(options)
    module.train()
    Path("/proc/self/clear_refs").write_text("5")
    before = _kib("VmRSS")
    seconds: list[float] = []
    loss = torch.zeros(())
    for _ in range(options.rounds):
        module.zero_grad(set_to_none=True)
        start = time.process_time()
        loss = FORMS[form](module, paths)
        seconds.append(time.process_time() - start)
    result = {"loss": float(loss), "seconds": seconds, "peak_mb": (_kib("VmHWM") - before) / 1024}
    result["tokens"] = sum(len(path.tokens) for path in paths)
    (Path(folder) / f"{form}.json").write_text(json.dumps(result))
    torch.save({name: p.grad for name, p in module.policy.adapter_parameters().items()}, Path(folder) / f"{form}.pt")


def _kib(key: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(key))


def main() -> None:
    """Measure both forms and print them side by side."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMS:
            process = multiprocessing.get_context("spawn").Process(target=measure, args=(form, options, folder))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{form} ended with {process.exitcode}")
        results = {form: json.loads((Path(folder) / f"{form}.json").read_text()) for form in FORMS}
        grads = {form: torch.load(Path(folder) / f"{form}.pt", weights_only=True) for form in FORMS}
    difference = torch.cat([(grads["ours"][n] - grads["naive"][n]).flatten() for n in grads["naive"]]).norm()
    size = torch.cat([g.flatten() for g in grads["naive"].values()]).norm()
    for form, result in results.items():
        print(
            f"{form:6s} loss {result['loss']:.7f}  {statistics.median(result['seconds']):7.2f} s CPU  "
            f"peak {result['peak_mb']:8.0f} MB  ({result['tokens']} tokens)"
        )
    print(f"relative difference of the LoRA gradients: {float(difference / size):.2e}")
    print(f"peak memory, ours / naive: {results['ours']['peak_mb'] / results['naive']['peak_mb']:.3f}")


if __name__ == "__main__":
    main()
