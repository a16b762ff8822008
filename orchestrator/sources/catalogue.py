"""Wellcome's Catalogue API, version 2: its images, or its works with every page of them.

The API gives the first 10,000 results of a query; for more, the daily snapshot is read and filtered here.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from lookalike.errors import SourceError
from lookalike.images import Checkpoint, Notice, Position, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources import catalogue_snapshot
from orchestrator.sources.catalogue_filters import filters_of
from orchestrator.sources.catalogue_records import read_record
from orchestrator.sources.iiif import Crawl
from orchestrator.sources.manifest import Resource, as_list
from orchestrator.sources.records import joined, without_secrets
from orchestrator.sources.web import AnswerError, Web, fingerprint

_ADDRESS = re.compile(r".*/catalogue/v2/(images|works)(/[^/]+)?/?")
_MOST = 10_000  # results of a query that the API gives
_TOO_MANY = re.compile(r"first 10,?000\b|snapshot", re.IGNORECASE)  # in the description of its 400
_PAGE_SIZE = 100

log = logging.getLogger(__name__)


class _TooManyError(Exception):
    """The query has more results than the API gives."""


def is_catalogue(url: str) -> bool:
    """Whether this is an address of images or works in the Catalogue API. Nothing in its query is secret."""
    try:
        return _ADDRESS.fullmatch(urlsplit(url).path) is not None
    except ValueError:
        return False


def read_catalogue(url: str, settings: Settings, position: Position | None = None) -> Iterator[Notice]:
    """Yields the images that a query of the API finds, or a single record (`/works/{id}`, `/images/{id}`).

    For works, the manifests of their items are followed, so that all their pages come. The query of the
    address is passed on. What is not open is Refused, by its status. With more than 10,000 results the
    snapshot is read in the API's place. Checkpoints lie behind each record. Raises SourceError.
    """
    name = fingerprint(url)
    if position is not None and position.get("snapshot") == name:
        yield from _from_snapshot(url, settings, position)
        return
    known = position if position is not None and position.get("catalogue") == name else {}
    with Web(settings, given=_with_defaults(url)) as web:
        if _kind_of(url)[1]:
            yield from web.vouch(_single(web, url))
            return
        try:
            yield from web.vouch(_pages(web, url, name, known))
        except _TooManyError:
            log.info("%s has more results than the API gives: the snapshot is read", without_secrets(url))
        else:
            return
    yield from _from_snapshot(url, settings, None)


def _from_snapshot(url: str, settings: Settings, position: Position | None) -> Iterator[Notice]:
    kind, _ = _kind_of(url)
    filters = filters_of(url, kind)
    address = f"{settings.wellcome_snapshots.rstrip('/')}/{kind}.json.gz"
    yield from catalogue_snapshot.read_url(address, settings, position, filters, name=fingerprint(url))


def _single(web: Web, url: str) -> Iterator[Notice]:
    record = web.json(_with_defaults(url))
    if not isinstance(record, dict):
        raise SourceError(f"{without_secrets(url)} gave no record of the catalogue")
    yield from read_record(record, Crawl(web))


def _pages(web: Web, url: str, name: str, known: Mapping[str, object]) -> Iterator[Notice]:
    """Yields what the pages of results hold, from the record after the known one. Raises _TooManyError."""
    crawl = Crawl(web)
    page = known.get("page")
    address, last = (page, known.get("last")) if isinstance(page, str) else (_with_defaults(url), None)
    asked: set[str] = set()
    while address not in asked:
        asked.add(address)
        document = _load(web, address)
        results = as_list(document.get("results"))
        for number, record in enumerate(_after(results, last), 1):
            if isinstance(record, dict):
                yield from read_record(record, crawl)
                yield Checkpoint({"catalogue": name, "page": address, "last": record.get("id")})
            else:
                where = f"{without_secrets(address)}, result {number}"
                yield Refused(where, Reason.BAD_RECORD, "not a JSON object")
        following = document.get("nextPage")
        if not isinstance(following, str) or not following:
            return
        address, last = _on_the_same_host(following, url), None


def _load(web: Web, address: str) -> Resource:
    """Returns a page of results. Raises _TooManyError, and SourceError for what is none."""
    try:
        document = web.json(address, patiently=True)
    except AnswerError as error:
        if error.status == HTTPStatus.BAD_REQUEST and _TOO_MANY.search(_description(error.page)):
            raise _TooManyError from None
        said = _description(error.page)
        raise SourceError(f"{error}{': ' if said else ''}{said}") from error
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        raise SourceError(f"{without_secrets(address)} gave no list of results; is it the Catalogue API?")
    total = document.get("totalResults")
    if isinstance(total, int) and total > _MOST:
        raise _TooManyError
    return document


def _after(results: list[object], last: object) -> list[object]:
    """Returns the results behind the one with this id; all of them, when it is not there any more."""
    ids = [each.get("id") if isinstance(each, dict) else None for each in results]
    return results[ids.index(last) + 1 :] if last is not None and last in ids else results


def _description(page: bytes) -> str:
    """Returns what the API says of an error."""
    try:
        error = json.loads(page)
    except ValueError:
        return ""
    said = error.get("description") if isinstance(error, dict) else None
    return " ".join(said.split())[:300] if isinstance(said, str) else ""


def _kind_of(url: str) -> tuple[Literal["images", "works"], bool]:
    """Returns which records an address is of, and whether it names a single one."""
    found = _ADDRESS.fullmatch(urlsplit(url).path)
    if found is None:
        raise SourceError(f"{without_secrets(url)} is no address of the Catalogue API")
    return ("works" if found[1] == "works" else "images"), bool(found[2])


def _with_defaults(url: str) -> str:
    """Adds to the query what we need: large pages, and of works their items."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kind, is_single = _kind_of(url)
    if not is_single and "pageSize" not in dict(query):
        query.append(("pageSize", str(_PAGE_SIZE)))
    if kind == "works":
        included = [each for name, value in query if name == "include" for each in value.split(",") if each]
        query = [(name, value) for name, value in query if name != "include"]
        query.append(("include", ",".join(dict.fromkeys([*included, "items"]))))
    return parts._replace(query=urlencode(query, safe=",!"), fragment="").geturl()


def _on_the_same_host(following: str, url: str) -> str:
    """Returns the absolute address of the next page. Raises SourceError when it leads to another host."""
    address = joined(url, following)
    if _host(address) != _host(url):
        raise SourceError(
            f"{without_secrets(url)} names a next page on another host, {without_secrets(address)}, "
            "which is not followed"
        )
    return address


def _host(url: str) -> tuple[str | None, int | None] | None:
    try:
        return urlsplit(url).hostname, urlsplit(url).port
    except ValueError:
        return None
