"""A limit on requests per second: a token bucket with a capacity of one second's requests."""

from collections.abc import Callable


class Bucket:
    """A token bucket whose rate is given with each request."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._rate: float | None = None
        self._level = 0.0
        self._at = 0.0

    def wait(self, rate: float | None) -> float:
        """Return the seconds until a request is allowed; 0.0 if this one is."""
        now = self._now()
        if rate != self._rate:
            self._rate, self._level, self._at = rate, max(1.0, rate or 0.0), now
        if rate is None:
            return 0.0
        self._level = min(max(1.0, rate), self._level + (now - self._at) * rate)
        self._at = now
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / rate
