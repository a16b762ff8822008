"""The task queue: Celery over Redis or Valkey. It only carries messages (a chunk, its lease, our
contract) and may lose them.

Settings and figures behind each choice: worker pools, redelivery and priorities of kombu's Redis transport. A chunk
waits in the queue of its encoder and lane, so that workers with different networks never take each other's work.
"""

from collections.abc import Iterable
from typing import Any

import kombu.transport.redis
import redis
from celery import Celery
from kombu import Queue
from kombu.transport.virtual import QoS

from lookalike.contract import CONTRACT
from lookalike.envelope import TASK, guard_transport, refusals
from lookalike.ledger import LANES, Lane, Lease

# Present in the broker as long as its data are; when it is gone, so are the messages.
SENTINEL = "lookalike:sentinel"


class PatientQoS(kombu.transport.redis.QoS):  # type: ignore[misc]  # kombu has no types
    """Counts a message as done also when the broker cannot be told, and drops what it cannot give back.

    kombu's own keeps it for ever then: a worker that is busy in all threads while the broker restarts would never take
    another message, and never look at its connection again.
    """

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            # No worker of ours has written this among the unacknowledged.
            refusals.add(type(error).__name__)
            self._remove_from_indices(tag).execute()

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            QoS.ack(self, delivery_tag)
            raise


def queue_name(encoder: str, lane: Lane) -> str:
    """The queue of an encoder's lane, `efficientnet-lite0.events`."""
    return f"{encoder}.{lane}"


def make_app(broker_url: str, encoder: str, events: bool = False) -> Celery:
    """Returns the Celery application that orchestrator and workers share. Does not connect.

    With `events` its worker tells the broker of each task, as Flower wants to hear it.
    """
    # For all forms of its addresses: redis, rediss, redis+socket and sentinel.
    kombu.transport.redis.Channel.QoS = PatientQoS
    guard_transport()
    app = Celery("lookalike", broker=broker_url)
    app.conf.update(
        # Celery's own command reads BROKER_URL too and would go by that, which lacks a password that is kept beside it.
        broker_read_url=broker_url,
        broker_write_url=broker_url,
        # In the order of LANES, which is the order that "priority" below serves them in.
        task_queues=[
            Queue(queue_name(encoder, lane), routing_key=queue_name(encoder, lane)) for lane in LANES
        ],
        task_default_queue=queue_name(encoder, "backfill"),
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # The ledger decides what happens to a crashed chunk; the broker must not send it again by itself.
        task_reject_on_worker_lost=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_send_task_events=events,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_transport_options={
            "visibility_timeout": 3600,
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
    )
    return app


def publish(app: Celery, encoder: str, lane: Lane, claims: Iterable[Lease]) -> None:
    """Sends a message for each leased chunk. An error is ambiguous; the sweep repairs what was not sent."""
    # The queue itself and not its name: an application declares only those of its own encoder.
    queue = Queue(queue_name(encoder, lane), routing_key=queue_name(encoder, lane))
    with app.producer_pool.acquire(block=True, timeout=10) as producer:
        for claim in claims:
            app.send_task(
                TASK,
                args=[claim.chunk, str(claim.lease), CONTRACT],
                queue=queue,
                producer=producer,
                retry=False,
            )


class Broker:
    """What the orchestrator needs to know of the broker beyond sending: is it the same one, is a queue empty?"""

    def __init__(self, broker_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url(broker_url), socket_timeout=10, socket_connect_timeout=3)

    def was_wiped(self) -> bool:
        """True when the broker has lost its data since the last call; the sentinel is set anew."""
        return bool(self._redis.set(SENTINEL, "present", nx=True))

    def waiting(self, encoder: str, lane: Lane) -> int:
        """Messages that wait in a queue."""
        length = self._redis.llen(queue_name(encoder, lane))
        assert isinstance(length, int)
        return length

    def close(self) -> None:
        self._redis.close()


def redis_url(broker_url: str) -> str:
    """The same address as redis-py writes it: kombu calls a socket `redis+socket:///path?virtual_host=0`."""
    if broker_url.startswith("redis+socket://"):
        return broker_url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")
    return broker_url
