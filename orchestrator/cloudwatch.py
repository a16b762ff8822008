"""Puts the backlog and the health of the archive into CloudWatch, where AWS scales workers and raises alarms by them.

One step of the upkeep, in a thread of its own: whatever CloudWatch does, dispatching goes on.
"""

import time
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lookalike import books, index
from lookalike.backlog import Backlog, measure
from lookalike.database import Connection
from lookalike.errors import ServiceError
from lookalike.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_cloudwatch.literals import StandardUnitType
    from mypy_boto3_cloudwatch.type_defs import MetricDatumTypeDef

# The metrics and their units. infra/aws/ has scaling and alarms on them; each has one dimension, Encoder.
METRICS: "dict[str, StandardUnitType]" = {
    "Backlog": "Count",  # images that wait for workers, to be embedded or analysed
    "BacklogPerWorker": "Count",  # the same for each living worker; as for one where there is none
    "OpenImages": "Count",  # those of them that are to be embedded
    "Workers": "Count",  # those whose heartbeats come
    "ImagesPerMinute": "Count",
    "FailedPercent": "Percent",  # of the last hour's images; only where there were enough to speak of a share
    "OldestEventSeconds": "Seconds",  # since when the oldest image of an event waits
    "BooksUnbalanced": "Count",  # 1 where the books do not balance, or the latest audit found what nobody repaired
}
# Exact counting reads the archive once: about a minute for 40 million images.
BOOKS_SECONDS = 3600.0
# Of fewer images a single bad one would be more than one per cent.
LEAST_IMAGES = 200
_ADVICE = {
    "AccessDenied": "access denied; the credentials need cloudwatch:PutMetricData for this namespace",
    "InvalidClientTokenId": "the server does not know the access key",
}


class Publisher:
    """Publishes the figures of one encoder, that of the settings, with every step. For one thread."""

    def __init__(self, settings: Settings) -> None:
        assert settings.cloudwatch_namespace is not None
        self._settings = settings
        self._namespace = settings.cloudwatch_namespace
        self._client: CloudWatchClient | None = None
        self._unbalanced: bool | None = None
        self._count_at = 0.0

    def step(self, connection: Connection) -> None:
        """Measures and publishes. Raises ServiceError where CloudWatch does not take it, UnknownEncoderError."""
        encoder = self._settings.encoder
        backlog = measure(connection, encoder)
        # Analyses that wait for an index need no worker until it is built.
        waiting = backlog.analysed if backlog.analysed and self._may_analyse(connection, encoder) else 0
        self._put(encoder, figures(backlog, waiting, self._unbalanced))
        if time.monotonic() >= self._count_at:
            # Last, and not again at once: what takes a minute, or is cancelled, must not hold the other figures up.
            self._count_at = time.monotonic() + BOOKS_SECONDS
            self._unbalanced = not books.count_books(connection, encoder).balanced
            self._put(encoder, {"BooksUnbalanced": int(self._unbalanced)})

    def _may_analyse(self, connection: Connection, encoder: str) -> bool:
        least = self._settings.index_rows
        return not least or index.is_searchable(connection, encoder, least)

    def _put(self, encoder: str, values: dict[str, float]) -> None:
        data: list[MetricDatumTypeDef] = [
            {
                "MetricName": name,
                "Dimensions": [{"Name": "Encoder", "Value": encoder}],
                "Value": value,
                "Unit": METRICS[name],
            }
            for name, value in values.items()
        ]
        try:
            self._connected().put_metric_data(Namespace=self._namespace, MetricData=data)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            raise ServiceError(f"CloudWatch: {_ADVICE.get(code, code)}") from error
        except (BotoCoreError, ValueError) as error:  # ValueError: boto3 refuses a malformed endpoint so
            raise ServiceError(f"CloudWatch: {error}") from error

    def _connected(self) -> "CloudWatchClient":
        if self._client is None:
            seconds = self._settings.connect_timeout
            # The next minute tries again anyway, with newer figures.
            config = Config(
                connect_timeout=seconds,
                read_timeout=seconds,
                retries={"mode": "standard", "total_max_attempts": 2},
            )
            # A session of its own: the default one is shared, and remembers the first credentials it saw.
            self._client = Session().client("cloudwatch", config=config)
        return self._client


def figures(backlog: Backlog, analysed: int, unbalanced: bool | None) -> dict[str, float]:
    """The values of the metrics. `analysed` waits to be analysed and can be; `unbalanced` None: not yet known."""
    waiting = backlog.images + analysed
    values: dict[str, float] = {
        "Backlog": waiting,
        "BacklogPerWorker": waiting / max(1, backlog.workers),
        "OpenImages": backlog.images,
        "Workers": backlog.workers,
        "ImagesPerMinute": backlog.last_minute,
        "OldestEventSeconds": backlog.oldest_event,
    }
    if unbalanced is not None:
        values["BooksUnbalanced"] = int(unbalanced)
    if backlog.last_hour >= LEAST_IMAGES:
        values["FailedPercent"] = 100 * backlog.failed_share
    return values
