"""The log of a process on standard error: lines for people, or one JSON object for each event in containers.

Either way an event says which chunk and image it is about. No traceback from here holds a password.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

from lookalike.database import mask

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# What `extra=` and `about` may add to an event; everything else of a record is the logging module's own.
FIELDS = ("chunk", "image", "encoder", "lane", "host", "source", "trace")
_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Says of all that this thread logs in the block what it is about: any of FIELDS."""
    token = _about.set({**_about.get(), **fields})
    try:
        yield
    finally:
        _about.reset(token)


class TextFormatter(logging.Formatter):
    """A line for people; messages name their chunk and image themselves."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the logging module's name
        """The traceback; what foreign libraries quote in theirs is masked."""
        return mask(super().formatException(ei))


class JsonFormatter(TextFormatter):
    """An object in one line: time (UTC), level, logger, message, what it is about, and the traceback of an error."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        event: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about.get(),
            **{name: value for name in FIELDS if (value := record.__dict__.get(name)) is not None},
        }
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False, default=str)


def log_to_stderr(form: Literal["text", "json"], level: int = logging.INFO) -> None:
    """Sends the log of this process to standard error; standard output belongs to results. A second call is nothing."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(TEXT))
    logging.basicConfig(level=level, handlers=[handler])
    # Warnings of libraries are events like all others.
    logging.captureWarnings(form == "json")
