"""The main job as a person runs it: three nodes, two sellers, one answer, books that add up."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from lyceum.demo import adds_up

QUESTION = "What is the subjective theory of value, and what was the Harlem Renaissance?"


def demo(kind: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lyceum", "demo", "--network", kind, "--json", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_demo_asks_pays_and_adds_up(kind: str) -> None:
    """One question of two fields: both specialists answer in whole sentences, are paid, and the books add up."""
    done = demo(kind, QUESTION)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["network"] == kind
    assert [(member["model"], member["ok"]) for member in answer["members"]] == [
        ("austrian-economics", True),
        ("american-culture", True),
    ]
    assert len({member["payment_hash"] for member in answer["members"]}) == 2
    assert answer["total_msat"] <= answer["paid_msat"] <= answer["budget_msat"]
    assert adds_up(answer)
    for part in answer["answer"].split("\n\n"):
        assert part.partition(" [")[0].endswith(".")


def test_a_budget_that_is_too_small_is_said(kind: str) -> None:
    """When the budget pays nobody, the exit code is 3, nothing moves, and JSON accounts for it."""
    done = demo(kind, QUESTION, "--budget-msat", "100")
    assert done.returncode == 3
    answer = json.loads(done.stdout)
    assert answer["paid_msat"] == 0
    assert adds_up(answer)
    assert "budget" in done.stderr
