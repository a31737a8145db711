"""The quickstart of the mix by the command: the shares that it asks for, a curve for each source, errors in a line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml
from in_process import fit, shown_line

ROOT = Path(__file__).parent.parent
SHARES = {"scale_answers": 0.5, "skill_pairs/rise": 0.25, "skill_pairs/chat": 0.25}


def _quickstart(pairs: int, skills: int, **mix: Any) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "dpo" / "quickstart-mix.yaml").read_text("utf-8"))
    data = config["data"]["init_args"]
    assert data["mix"]["weights"] == SHARES
    for source, number in zip(data["sources"], (pairs, skills), strict=True):
        source["init_args"]["n"] = number
    data["mix"].update(mix)
    return config


@pytest.mark.slow
def test_the_windows_of_an_epoch_have_the_shares_asked_for_and_each_source_has_its_curves() -> None:
    assert fit(_quickstart(60, 160), "--data.val_fraction=0.2", "--data.window=8") == 0
    path = Path("lightning_logs/quickstart-mix/version_0/metrics.csv")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    trained = [row for row in rows if row["train/loss"]]
    assert len(trained) > 5
    for name, share in SHARES.items():
        shares = [float(row[f"train/by_source/{name}/share"]) for row in trained]
        assert sum(shares) / len(shares) == pytest.approx(share, abs=0.02)  # the windows hold 8 to 9 pairs
        for metric in ("loss", "accuracies", "margins"):
            assert sum(bool(row[f"train/by_source/{name}/{metric}"]) for row in trained) > len(trained) / 2
            assert [row for row in rows if row[f"val/by_source/{name}/{metric}"]]


def test_a_mix_that_cannot_be_met_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert fit(_quickstart(10, 40, size=200)) == 1
    assert "fewer than `size` = 200, for 'scale_answers' is to be 50.0% and has" in shown_line(capsys)
    assert not Path("lightning_logs").exists()
