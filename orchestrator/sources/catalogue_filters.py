"""The filters of Wellcome's Catalogue API, applied to records of a snapshot as the API applies them to its index.

Only those are known whose fields stand in the records word for word; nothing is approximated.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

from lookalike.errors import SourceError
from orchestrator.sources.manifest import Resource, resources
from orchestrator.sources.records import without_secrets

Filter = Callable[[Resource], bool]

# Of these the records do not depend.
_PASSED_OVER = frozenset({"pageSize", "include", "sort", "sortOrder", "aggregations"})
_OF_WORKS = {
    "items.locations.license": ("items", "locations", "license", "id"),
    "items.locations.locationType": ("items", "locations", "locationType", "id"),
    "items.locations.accessConditions.status": ("items", "locations", "accessConditions", "status", "id"),
    "workType": ("workType", "id"),
    "type": ("type",),
    "languages": ("languages", "id"),
    "availabilities": ("availabilities", "id"),
    "items": ("items", "id"),
    "contributors.agent": ("contributors", "agent", "id"),
}
_OF_IMAGES = {
    "locations.license": ("locations", "license", "id"),
    "source.contributors.agent": ("source", "contributors", "agent", "id"),
}
_WITH_NEGATION = "items.locations.accessConditions.status"


def filters_of(url: str, kind: str) -> list[Filter]:
    """Returns the filters in the query of an API address; `kind` is images or works.

    Raises SourceError for those that can only be answered by the API.
    """
    fields: Mapping[str, Sequence[str]] = _OF_WORKS if kind == "works" else _OF_IMAGES
    wanted = [
        (name, value) for name, value in parse_qsl(urlsplit(url).query) if name not in _PASSED_OVER and value
    ]
    unknown = sorted({name for name, _ in wanted} - fields.keys())
    if unknown:
        raise SourceError(
            f"{without_secrets(url)} has more than the 10,000 results that the API gives, and the snapshot of the "
            f"whole catalogue cannot be filtered by {', '.join(unknown)}: narrow the query, or filter only by "
            f"{', '.join(fields)}"
        )
    return [_filter(fields[name], value.split(","), name == _WITH_NEGATION) for name, value in wanted]


def _filter(path: Sequence[str], values: Sequence[str], negation: bool) -> Filter:
    """Says of a record whether it has one of the values at the path, and none of those with `!`."""
    excluded = {value[1:] for value in values if negation and value.startswith("!")}
    included = {value for value in values if not (negation and value.startswith("!"))}

    def passes(record: Resource) -> bool:
        found = set(_values(record, path))
        return not found & excluded and (not included or bool(found & included))

    return passes


def _values(record: Resource, path: Sequence[str]) -> Iterator[str]:
    """Yields the texts at a path, through lists."""
    name, *rest = path
    if rest:
        for inner in resources(record.get(name)):
            yield from _values(inner, rest)
    elif isinstance(value := record.get(name), str):
        yield value
