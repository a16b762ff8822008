"""A thread that takes nothing but events: chunks of a backfill that wait for slow hosts in all others hold none up.

It takes them beside Celery's own threads, whichever is free first, from the same queue and under the same rules.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu import Consumer, Message
from kombu.mixins import ConsumerMixin

from lookalike.queue import queue_name

log = logging.getLogger(__name__)

RESTART_SECONDS = 1.0


class EventsThread(ConsumerMixin):  # type: ignore[misc]  # kombu has no types
    """Hands the words of each message in the lane of events to `embed`. Waits for a broker, however long."""

    def __init__(self, app: Celery, encoder: str, embed: Callable[..., None]) -> None:
        self.connection = app.connection_for_read()
        events = queue_name(encoder, "events")
        self._queue = next(queue for queue in app.conf.task_queues if queue.name == events)
        self._embed = embed
        self._at_work = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        # Celery says by itself when the broker is away: once is enough.
        logging.getLogger("kombu.mixins").setLevel(logging.ERROR)
        self._thread.start()

    def stop(self) -> None:
        """Takes no more. Returns at once."""
        self.should_stop = True

    def join(self) -> None:
        """Waits until the chunk under way is settled; not for the thread, which may be waiting for the broker."""
        with self._at_work:
            pass

    def get_consumers(self, consumer: type[Consumer], channel: Any) -> list[Consumer]:  # noqa: ARG002 - kombu's words
        """What to take, which ConsumerMixin asks at each connection: one message at a time."""
        return [consumer([self._queue], accept=["json"], prefetch_count=1, on_message=self._take)]

    def _run(self) -> None:
        while not self.should_stop:
            try:
                self.run()
            except Exception:
                # Without this thread events would only be slower: whatever it was, it goes on.
                log.exception("the thread of events begins anew")
                time.sleep(RESTART_SECONDS)

    def _take(self, message: Message) -> None:
        with self._at_work:
            if self.should_stop:
                message.requeue()
                return
            # The envelope was checked when the message came from the broker.
            words, _, _ = message.decode()
            try:
                self._embed(*words)
            except Exception:
                # As in Celery's threads: the lease runs out, and that counts as a crash.
                log.exception("a chunk of events ended with an error")
            message.ack()
