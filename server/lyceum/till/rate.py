"""How often each client may have something: a bucket that holds a minute's worth and fills evenly.

Its memory is bounded: of too many clients the one not seen for longest is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict

from lyceum.money import ceil_div

MOST_CLIENTS = 10_000
MINUTE_S = 60


class Rate:
    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, per_minute: int, now: int) -> int:
        """0 if there was one to take, else the seconds until there is. `now` is in seconds.

        A second adds `per_minute` to the level, and one thing takes 60 from it.
        """
        level, at = self._buckets.pop(client, (per_minute * MINUTE_S, now))
        level = min(level + max(now - at, 0) * per_minute, per_minute * MINUTE_S)
        wait_s = ceil_div(max(MINUTE_S - level, 0), per_minute)
        self._buckets[client] = (level if wait_s else level - MINUTE_S, now)
        if len(self._buckets) > MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return wait_s
