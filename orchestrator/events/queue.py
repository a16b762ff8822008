"""An SQS queue, standard or FIFO, of AWS or a server that speaks its language. It understands no message.

Nothing is deleted before somebody says so: what is received and not deleted comes again.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from lookalike.errors import ServiceError, SourceError
from lookalike.settings import Settings
from orchestrator.events.messages import Message
from orchestrator.sources import QUEUE_SCHEME
from orchestrator.sources.records import plain, without_secrets

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

log = logging.getLogger(__name__)

BATCH = 10  # SQS gives and takes no more at once
# A receive cannot be called off, and what it gets after we have stopped would be hidden from others for a while. So
# it waits for a second and not for the twenty that SQS allows: a message is handed over at once in either case, and
# an idle queue costs 2.6 million requests a month, about a dollar.
WAIT_SECONDS = 1
_NAME = re.compile(r"[\w-]{1,80}(\.fifo)?", re.ASCII)
_URL = re.compile(r"https?://[^/\s@]+/\S+")
_AWS_REGION = re.compile(r"https://(?:sqs\.)?([a-z0-9-]+)\.(?:queue\.)?amazonaws\.com")
_ADVICE = {
    "QueueDoesNotExist": "no such queue; check its name, the region, and AWS_ENDPOINT_URL for servers other than AWS",
    "AccessDenied": "access denied; the credentials need sqs:GetQueueUrl, sqs:ReceiveMessage and sqs:DeleteMessage",
    "InvalidClientTokenId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
}


@dataclass(frozen=True, slots=True)
class Received:
    """A message with its number, and the receipt that deletes it."""

    id: str
    receipt: str
    message: Message


class Queue:
    """The queue of a spec, `sqs:NAME` or `sqs:https://host/account/NAME`. For one thread.

    Raises SourceError when the spec names none. A queue that is not there, or cannot be reached, raises
    ServiceError from the methods.
    """

    def __init__(self, spec: str, settings: Settings) -> None:
        address = spec.removeprefix(QUEUE_SCHEME)
        if not (_NAME.fullmatch(address) or _URL.fullmatch(address)):
            raise SourceError(
                f"{QUEUE_SCHEME}{without_secrets(address)}: write sqs:NAME or sqs:https://host/account/NAME"
            )
        self.name = QUEUE_SCHEME + without_secrets(address)
        self._address = address
        self._url = address if _URL.fullmatch(address) else None
        region = _AWS_REGION.match(address)
        self._region = region[1] if region else None
        self._config = Config(
            connect_timeout=settings.connect_timeout,
            read_timeout=WAIT_SECONDS + settings.connect_timeout,
            # Whoever receives tries again by itself, and sees when to stop.
            retries={"mode": "standard", "total_max_attempts": 1},
        )
        self._client: SQSClient | None = None

    def receive(self) -> list[Received]:
        """Returns up to ten messages, at once where there are any, else none after a second."""
        with self._explained():
            client = self._connected()
            answer = client.receive_message(
                QueueUrl=self._find_url(client),
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=WAIT_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp"],
                MessageAttributeNames=["messageType"],
            )
        received = []
        for each in answer.get("Messages", []):
            sent = each.get("Attributes", {}).get("SentTimestamp")
            moment = datetime.fromtimestamp(int(sent) / 1000, UTC) if sent else datetime.now(UTC)
            attributes = {
                name: value.get("StringValue", "")
                for name, value in each.get("MessageAttributes", {}).items()
            }
            message = Message(each.get("Body", ""), moment, attributes)
            received.append(Received(each.get("MessageId", ""), each.get("ReceiptHandle", ""), message))
        return received

    def delete(self, messages: Sequence[Received]) -> None:
        """Deletes up to ten messages. Where that fails they come again, which does no harm."""
        if not messages:
            return
        entries = [{"Id": str(n), "ReceiptHandle": each.receipt} for n, each in enumerate(messages)]
        try:
            with self._explained():
                client = self._connected()
                answer = client.delete_message_batch(QueueUrl=self._find_url(client), Entries=entries)  # type: ignore[arg-type]
            failed = len(answer.get("Failed", []))
        except ServiceError as error:
            log.info("%s; the messages will come again", error)
        else:
            if failed:
                log.info("%s: %d messages could not be deleted and will come again", self.name, failed)

    def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            self._client.close()

    def _connected(self) -> "SQSClient":
        if self._client is None:
            # A session of its own: the default one is shared, and remembers the first credentials it saw.
            self._client = Session().client("sqs", region_name=self._region, config=self._config)
        return self._client

    def _find_url(self, client: "SQSClient") -> str:
        if self._url is None:
            self._url = client.get_queue_url(QueueName=self._address)["QueueUrl"]
        return self._url

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Says in a ServiceError what is wrong with the queue."""
        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "")).rpartition(".")[2]
            code = "QueueDoesNotExist" if code in ("NonExistentQueue", "QueueDoesNotExist") else code
            raise ServiceError(f"{self.name}: {_ADVICE.get(code, code)}") from error
        except (BotoCoreError, ValueError) as error:  # ValueError: boto3 refuses a malformed endpoint so
            raise ServiceError(f"{self.name}: {plain(str(error))}") from error
