"""Whether Celery's consumer has its connection to the broker: a worker without one beats, but takes no chunk."""

from collections.abc import Callable
from typing import Any

from celery import Celery, bootsteps


def watch_consumer(app: Celery, tell: Callable[[bool], None]) -> None:
    """Has `tell` called when the consumer has its connection and its queues, and again when it has lost them."""

    class Watch(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        # The step that subscribes to queues. When a connection is lost, Celery stops all steps, then starts them anew.
        requires = ("celery.worker.consumer:Tasks",)

        def start(self, _: Any) -> None:
            tell(True)

        def stop(self, _: Any) -> None:
            tell(False)

    app.steps["consumer"].add(Watch)
