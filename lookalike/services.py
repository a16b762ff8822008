"""The embedded services: a PostgreSQL with pgvector and a Valkey of our own, for a machine that has neither.

Their data live under `settings.home`. They start on demand, outlive the command that started them, and end
with `down`; nothing here starts or stops a service that is given by DATABASE_URL or BROKER_URL.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from lookalike import daemons, database
from lookalike.errors import LookalikeError, ServiceError
from lookalike.servers import START_SECONDS, Postgres, Server, Valkey
from lookalike.settings import Settings


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the services answer. Both URLs hold passwords: `database.mask` them before showing them."""

    database_url: str = field(repr=False)
    broker_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A line of `lookalike services status`; a service given by its URL has no `pid` and no `folder`."""

    name: str
    running: bool
    pid: int | None
    version: str
    folder: Path | None
    detail: str


def up(settings: Settings) -> Endpoints:
    """Starts what the settings don't name and what does not run, waits until it answers, and says where.

    Safe to be called by many processes at once. Raises ServiceError when a service cannot be started.
    """
    home = settings.home.resolve()
    postgres, valkey = Postgres(home), Valkey(home)
    wanted: list[Server] = []
    if settings.database_url is None:
        wanted.append(postgres)
    if settings.broker_url is None:
        wanted.append(valkey)
    _start(wanted, home)
    return Endpoints(
        _given(settings.database_url, settings.database_password) or postgres.url(),
        _given(settings.broker_url, settings.broker_password) or valkey.url(),
    )


def up_database(settings: Settings) -> str:
    """Like `up`, for what needs no broker: who migrates on the database's host may have none. Returns its address."""
    home = settings.home.resolve()
    if settings.database_url is None:
        _start([Postgres(home)], home)
    return _given(settings.database_url, settings.database_password) or Postgres(home).url()


def _given(url: SecretStr | None, password: SecretStr | None) -> str | None:
    """The operator's address, with the password that stands beside it."""
    if url is None:
        return None
    if password is None:
        return url.get_secret_value()
    return database.with_password(url.get_secret_value(), password.get_secret_value())


def _start(wanted: Sequence[Server], home: Path) -> None:
    if all(server.answers() for server in wanted):
        return
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _lock(home):
            for server in wanted:
                server.start()
    except OSError as error:
        raise ServiceError(f"the embedded services cannot be started: {error}") from error


def down(settings: Settings) -> None:
    """Stops the embedded services and waits until they are gone. Nothing happens to those that don't run."""
    home = settings.home.resolve()
    if home.exists():
        with _lock(home):
            Valkey(home).stop()
            Postgres(home).stop()


def status(settings: Settings) -> list[ServiceStatus]:
    """Returns what runs, starting nothing: the database first, then the broker."""
    home = settings.home.resolve()
    database_url = _given(settings.database_url, settings.database_password)
    broker_url = _given(settings.broker_url, settings.broker_password)
    return [
        _database_status(database_url) if database_url else _embedded_status(Postgres(home)),
        _broker_status(broker_url) if broker_url else _embedded_status(Valkey(home)),
    ]


def _lock(home: Path) -> daemons.Lock:
    return daemons.lock(home / "services.lock", START_SECONDS)


def _embedded_status(server: Server) -> ServiceStatus:
    pid = server.pid()
    try:
        version, detail = server.version(), "stopped" if server.folder.exists() else "not set up yet"
    except ServiceError as error:
        version, detail = "", str(error)
    if pid is not None:
        detail = server.address() if server.answers() else f"{server.address()}, not ready"
    return ServiceStatus(server.name, pid is not None, pid, version, server.folder, detail)


def _database_status(url: str) -> ServiceStatus:
    try:
        with database.connect(url, application_name="lookalike status") as connection:
            version = connection.info.parameter_status("server_version") or ""
    except LookalikeError as error:
        return ServiceStatus("postgres", False, None, "", None, str(error))
    detail = f"DATABASE_URL: {database.mask(url)}"
    return ServiceStatus("postgres", True, None, version.split(" ")[0], None, detail)


def _broker_status(url: str) -> ServiceStatus:
    import redis  # slow to import, and needed only here

    detail = f"BROKER_URL: {database.mask(url)}"
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5) as client:
            about: dict[str, object] = client.info("server")
    except (redis.RedisError, ValueError, OSError) as error:
        return ServiceStatus("valkey", False, None, "", None, database.mask(f"{detail}: {error}"))
    version = str(about.get("valkey_version") or about.get("redis_version"))
    return ServiceStatus("valkey", True, None, version, None, detail)
