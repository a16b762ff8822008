"""How settings are read from the environment."""

import pytest

from lookalike.errors import ConfigurationError
from lookalike.settings import HostLimit, load_settings


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
