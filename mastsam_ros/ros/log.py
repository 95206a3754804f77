"""One clear line at a time: rate-limited warnings and errors, and Python's logging forwarded to ROS."""

from __future__ import annotations

import logging
import threading
import time

from rclpy.impl.rcutils_logger import RcutilsLogger

_MOST_KINDS = 1000
"""Beyond so many kinds of lines those that may be said again are forgotten."""


class Complaints:
    """Says the same thing at most once per interval, with a count of what was held back."""

    def __init__(self, logger: RcutilsLogger, interval_s: float = 5.0) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def error(self, kind: str, text: str) -> None:
        """An error of this kind, unless one was said within the interval."""
        held_back = self._due(kind)
        if held_back is not None:
            self._logger.error(_with_count(text, held_back))

    def warn(self, kind: str, text: str) -> None:
        """A warning of this kind, unless one was said within the interval."""
        held_back = self._due(kind)
        if held_back is not None:
            self._logger.warning(_with_count(text, held_back))

    def info(self, kind: str, text: str) -> None:
        """A line of this kind, unless one was said within the interval."""
        held_back = self._due(kind)
        if held_back is not None:
            self._logger.info(_with_count(text, held_back))

    def _due(self, kind: str) -> int | None:
        """How many were held back since the last one, or None if it is too early."""
        now = time.monotonic()
        with self._lock:
            if len(self._said) > _MOST_KINDS:  # kinds with names in them that come from outside
                self._said = {of: said for of, said in self._said.items() if now - said[0] < self._interval_s}
            last, held_back = self._said.get(kind, (-self._interval_s, 0))
            if now - last < self._interval_s:
                self._said[kind] = (last, held_back + 1)
                return None
            self._said[kind] = (now, 0)
        return held_back


def _with_count(text: str, held_back: int) -> str:
    line = " ".join(text.split())
    return f"{line} (and {held_back} more like this)" if held_back else line


class RosLogHandler(logging.Handler):
    """Forwards the log of the package's other modules to the node's logger."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._complaints = Complaints(logger)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Warnings and errors are rate-limited by their format text, which is the same for every frame."""
        text = record.getMessage()
        if record.levelno >= logging.ERROR:
            self._complaints.error(str(record.msg), text)
        elif record.levelno >= logging.WARNING:
            self._complaints.warn(str(record.msg), text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
