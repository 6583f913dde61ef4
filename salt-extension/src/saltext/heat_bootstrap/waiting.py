"""
When those for whom there is no place now shall come back: as many at a time as there will be places.

Nothing here looks at a file, a database or a clock.
"""

from __future__ import annotations

import heapq
import random
from collections import deque

# Nobody comes back earlier: asking costs the service something, too.
SOONEST = 5.0
# Over so much time those who wait are spread where hardly anybody waits.
SPREAD = 15.0
LATEST = 300.0
# So many a second may ask, also where fewer places become free: then no place is empty while they sleep. Where none becomes free
# for long they are up to twice as many.
ASKS = 20.0
# The pace is that of so many last seconds.
LOOKS_BACK = 30.0


class Waiting:
    """
    Who was sent away and has not come back yet, and at which pace places become free.
    """

    def __init__(self) -> None:
        # When they will be back, as a heap
        self._coming: list[float] = []
        self._freed: deque[float] = deque()

    def freed(self, now: float) -> None:
        """A place has become free."""
        self._freed.append(now)
        self._forget(now)

    def comes_back(self, now: float) -> int:
        """In how many seconds the next one that is sent away shall come back."""
        self._forget(now)
        pace = max(len(self._freed) / LOOKS_BACK, ASKS)
        latest = min(max(SPREAD, len(self._coming) / pace), LATEST)
        seconds = random.uniform(SOONEST, latest)  # noqa: S311 - no secret
        heapq.heappush(self._coming, now + seconds)
        return round(seconds)

    def _forget(self, now: float) -> None:
        while self._coming and self._coming[0] <= now:
            heapq.heappop(self._coming)
        while self._freed and now - self._freed[0] > LOOKS_BACK:
            self._freed.popleft()
