"""What every command starts with: settings, services, a migrated database, a connection."""

import logging
import threading
from dataclasses import dataclass

from lookalike import archive
from lookalike.contract import check_contract
from lookalike.database import Connection, connect, wait_out
from lookalike.encoders import find_encoder
from lookalike.errors import ServiceError
from lookalike.logs import log_to_stderr
from lookalike.migrate import migrate, pending, unbuilt
from lookalike.services import Endpoints, up
from lookalike.settings import Settings, load_settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Session:
    """Settings and the services that they lead to."""

    settings: Settings
    endpoints: Endpoints

    def connect(self, application_name: str = "lookalike") -> Connection:
        """A new connection in autocommit mode; starts an embedded server that has died, perhaps elsewhere.

        Raises ContractError when the database has become one of another version.
        """
        connection = connect(up(self.settings).database_url, application_name=application_name)
        try:
            check_contract(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def open_session(stop: threading.Event | None = None) -> Session:
    """Reads the settings and brings the services up.

    The embedded database is migrated as needed; a database of the operator's is only checked, and ServiceError says
    what to run. With `stop`, a database that is away is waited for until that is set; then it raises AwayError.
    """
    settings = load_settings()
    endpoints = up(settings)
    if stop is None:
        _check_schema(settings, endpoints)
    else:
        wait_out(lambda: _check_schema(settings, endpoints), stop)
    return Session(settings, endpoints)


def _check_schema(settings: Settings, endpoints: Endpoints) -> None:
    missing = pending(endpoints.database_url)
    if missing and settings.database_url is not None:
        raise ServiceError(f"the database lacks {len(missing)} migrations: run `lookalike migrate` first")
    indexes = unbuilt(endpoints.database_url)
    if settings.database_url is None and (missing or indexes):
        migrate(
            endpoints.database_url,
            on_build=lambda index: log.warning("building the index %s, once", index),
            on_wait=log.warning,
        )
    elif indexes:
        log.warning("indexes are missing (%s): `lookalike migrate` builds them", ", ".join(indexes))


def ensure_encoder(session: Session, connection: Connection) -> None:
    """Adds the encoder of the settings to the archive if it is not there.

    Raises UnknownEncoderError; ConfigurationError for one that was taken out.
    """
    archive.ensure_encoder(connection, find_encoder(session.settings.encoder), session.settings.chunk_size)


def log_to_terminal(level: int = logging.INFO) -> None:
    """Sends the log to standard error in the form of LOOKALIKE_LOG_FORMAT; standard output belongs to results."""
    log_to_stderr(load_settings().log_format, level)
