"""How settings are read from the environment."""

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from lookalike import settings as settings_module
from lookalike.database import mask, with_password
from lookalike.errors import ConfigurationError
from lookalike.services import up
from lookalike.settings import HostLimit, load_settings

ODD = "p@ss/w?rd#%: '\\"


def test_hosts_have_limits_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """LOOKALIKE_HOSTS is JSON; names are compared in small letters, and what is left out is no limit."""
    monkeypatch.setenv("LOOKALIKE_HOSTS", '{"IIIF.example.org:8080": {"rate": 0.5}, "b": {"concurrency": 3}}')
    assert load_settings().hosts == {
        "iiif.example.org:8080": HostLimit(rate=0.5, concurrency=0),
        "b": HostLimit(rate=0, concurrency=3),
    }


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("iiif.example.org=8", "LOOKALIKE_HOSTS as JSON"),
        ('{"https://iiif.example.org/a": {"rate": 8}}', "is no host: write iiif.example.org"),
        ('{"a": {"rates": 8}}', "hosts.a.rates: Extra inputs are not permitted"),
        ('{"a": {"rate": -1}}', "hosts.a.rate: Input should be greater than or equal to 0"),
        ('{"a": {"concurrency": 1.5}}', "hosts.a.concurrency: Input should be a valid integer"),
    ],
)
def test_wrong_limits_of_hosts_say_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    """A typing error names the setting and what it should be."""
    monkeypatch.setenv("LOOKALIKE_HOSTS", value)
    with pytest.raises(ConfigurationError, match=said):
        load_settings()


def test_secrets_may_be_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Docker's folder and of systemd's, named as the variables; the environment goes before, and so does `.env`."""
    docker, systemd = tmp_path / "docker", tmp_path / "systemd"
    for folder in (docker, systemd):
        folder.mkdir()
    (docker / "database_password").write_text(f"{ODD}\n")
    (docker / "postgres_password").write_text("not ours")
    (docker / "lookalike_encoder").write_text("resnet50\n")
    (docker / "lookalike_hosts").write_text(json.dumps({"a": {"rate": 1}}))
    (systemd / "broker_password").write_text("word")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LOOKALIKE_ENCODER=vgg16-fc7\n")
    monkeypatch.setattr(settings_module, "SECRETS_FOLDER", str(docker))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(systemd))
    settings = load_settings()
    assert settings.database_password is not None
    assert settings.database_password.get_secret_value() == ODD
    assert settings.broker_password is not None
    assert settings.broker_password.get_secret_value() == "word"
    assert settings.encoder == "vgg16-fc7"
    assert settings.hosts == {"a": HostLimit(rate=1)}
    monkeypatch.setenv("DATABASE_PASSWORD", "another")
    again = load_settings().database_password
    assert again is not None
    assert again.get_secret_value() == "another"
    assert ODD not in repr(settings)


def test_without_such_folders_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """A machine without Docker has none."""
    monkeypatch.setattr(settings_module, "SECRETS_FOLDER", "/nowhere/secrets")
    load_settings()
    assert [str(warning.message) for warning in recwarn if "secret" in str(warning.message)] == []


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me@host:5433/db?sslmode=verify-full",
        "postgres://me@%2Frun%2Fpg/db",
        "host=host user=me dbname=db",
        "postgresql:///db?user=me",
    ],
)
def test_a_password_beside_the_address_may_hold_anything(address: str) -> None:
    """It arrives at libpq as it is, in each form of an address, and is masked wherever that is shown."""
    joined = with_password(address, ODD)
    assert conninfo_to_dict(joined) == {**conninfo_to_dict(address), "password": ODD}
    assert "w?rd" not in mask(joined)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:own@host/db",
        "postgresql://host/db?password=own",
        "password=own host=h",
        "host='broken",
    ],
)
def test_an_address_with_a_password_keeps_it(address: str) -> None:
    """What the operator wrote into it holds; what cannot be understood is left for whoever connects."""
    assert with_password(address, "other") == address


def test_programs_connect_with_the_passwords_beside_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that asks for endpoints gets them whole."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://worker@postgres/lookalike")
    monkeypatch.setenv("DATABASE_PASSWORD", "a b")
    monkeypatch.setenv("BROKER_URL", "redis://valkey:6379/0")
    monkeypatch.setenv("BROKER_PASSWORD", "c/d")
    found = up(load_settings())
    assert found.database_url == "postgresql://worker:a%20b@postgres/lookalike"
    assert found.broker_url == "redis://:c%2Fd@valkey:6379/0"
