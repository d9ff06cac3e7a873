"""What a burst of answers amounts to. Pure; times in seconds in, milliseconds out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from serving.load import Answer


def figures(answers: Sequence[Answer], wanted: int) -> dict[str, Any]:
    """`wrong`: answers that failed or have not the wanted number of tokens; they count for what they brought."""
    good = [answer for answer in answers if answer.arrivals]
    if not good:
        return {"tokens_per_s": 0.0, "wrong": len(answers), "failure": answers[0].failure}
    took_s = max(answer.arrivals[-1] for answer in good) - min(answer.started for answer in answers)
    firsts = [answer.arrivals[0] - answer.started for answer in good]
    gaps = [gap for answer in good for gap in answer.gaps]
    found = {
        "tokens_per_s": round(sum(answer.tokens for answer in good) / took_s, 1),
        "ttft_ms_p50": milliseconds(firsts, 50),
        "ttft_ms_p99": milliseconds(firsts, 99),
        "itl_ms_p99": milliseconds(gaps, 99),
        "fairness": round(fairness(good), 3),
        "wrong": sum(answer.tokens != wanted or bool(answer.failure) for answer in answers),
    }
    failure = next((answer.failure for answer in answers if answer.failure), "")
    return found | ({"failure": failure} if failure else {})


def fairness(answers: Sequence[Answer]) -> float:
    """The slowest client's tokens a second over the fastest one's."""
    speeds = []
    for client in {answer.client for answer in answers}:
        own = [answer for answer in answers if answer.client == client]
        took_s = max(answer.arrivals[-1] for answer in own) - min(answer.started for answer in own)
        speeds.append(sum(answer.tokens for answer in own) / took_s)
    return min(speeds) / max(speeds)


def stall(streams: Sequence[Answer], late: Answer, quiet: int) -> dict[str, Any]:
    """Gaps between the pieces of those who stream: while all of them do, and while the late one's prompt is read."""
    all_speak = max(answer.arrivals[0] for answer in streams)
    before, during = [], []
    for answer in streams:
        for gap, ended in zip(answer.gaps, answer.arrivals[1:], strict=True):
            if all_speak < ended - gap and ended <= late.started:
                before.append(gap)
            elif late.started < ended and ended - gap < late.arrivals[0]:
                during.append(gap)
    if len(before) < quiet or not during:
        return {"wrong": 1}
    calm, busy = milliseconds(before, 99), milliseconds(during, 99)
    return {
        "itl_ms_p99": calm,
        "itl_ms_p99_joining": busy,
        "itl_p99_ratio": round(busy / calm, 2) if calm else None,
        "ttft_ms_long": round((late.arrivals[0] - late.started) * 1000, 1),
        "wrong": 0,
    }


def milliseconds(taken: Sequence[float], percentile: int) -> float:
    """The nearest rank: no figure that was not measured."""
    if not taken:
        return 0.0
    rank = -(-len(taken) * percentile // 100)
    return round(sorted(taken)[max(rank, 1) - 1] * 1000, 2)
