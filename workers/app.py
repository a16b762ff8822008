"""The Celery application of the workers: `lookalike worker`, or plain `celery -A workers.app worker -P threads -c 2`.

Importing this module does nothing; reading `app` from it, as Celery does, reads the settings.
"""

import logging
from functools import partial
from typing import Any

from celery import Celery, Task, signals

from lookalike.envelope import TASK
from lookalike.errors import LookalikeError
from lookalike.queue import make_app, queue_name
from lookalike.services import up
from lookalike.settings import Settings, load_settings
from workers.embedder import Embedder, start_embedder
from workers.events import EventsThread
from workers.listening import watch_consumer
from workers.messages import read_message

log = logging.getLogger(__name__)


def __getattr__(name: str) -> Celery:
    if name == "app":
        return worker_app(load_settings())
    raise AttributeError(name)


def worker_app(settings: Settings) -> Celery:
    """The application of a worker with these settings; it loads the encoder when the worker starts."""
    endpoints = up(settings)
    app = make_app(endpoints.broker_url, settings.encoder, settings.celery_events)
    running: list[Embedder] = []

    suspects = queue_name(settings.encoder, "suspect")

    def embed_words(*words: object, alone: bool = False) -> None:
        message = read_message(words)
        if message is not None:
            running[0].embed(message.chunk, message.lease, alone)

    def embed(task: Task, *words: object) -> None:
        alone = task.request.delivery_info.get("routing_key") == suspects
        embed_words(*words, alone=alone)

    events = EventsThread(app, settings.encoder, embed_words)

    def load(**_: Any) -> None:
        try:
            running.append(start_embedder(settings, endpoints))
        except LookalikeError as error:
            raise SystemExit(f"lookalike worker: {error}") from None
        except Exception:
            # Celery would log it and go on: a worker without an encoder, which takes messages and drops them.
            log.exception("the worker cannot start")
            raise SystemExit(1) from None
        events.start()

    def stop(**_: Any) -> None:
        events.stop()
        for embedder in running:
            embedder.stop()

    def leave(**_: Any) -> None:
        # Celery has waited for its own threads.
        events.join()
        _leave(running)

    app.task(name=TASK, bind=True)(embed)
    watch_consumer(app, partial(_listen, running))
    signals.worker_init.connect(load, weak=False)
    signals.worker_shutting_down.connect(stop, weak=False)
    signals.worker_shutdown.connect(leave, weak=False)
    return app


def _listen(embedders: list[Embedder], is_listening: bool) -> None:
    for embedder in embedders:
        embedder.listen(is_listening)


def _leave(embedders: list[Embedder]) -> None:
    for embedder in embedders:
        embedder.leave()
