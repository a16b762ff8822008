"""What a source announces: images, images that are gone, manifests to come, records that it refused, how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lookalike.reasons import Reason

Protocol = Literal["file", "iiif"]


@dataclass(frozen=True, slots=True)
class Image:
    """One digitised picture as a source announces it.

    `key` is its stable, unique name in the archive. `url` is where to fetch it: the address of a file (`file://`,
    `http(s)://`, `s3://bucket/key`) when `protocol` is "file", the base address of a IIIF image service (without
    `/info.json`) when it is "iiif". `content` is what the source knows of the bytes (an ETag, checksum or version):
    when it changes, the image is embedded again; None means that the source cannot tell. `source` is what announced it
    first, `digitised` the day of its digitisation (an ISO date); without one, that of its registration is taken.
    `as_of` is when the source saw it so (an ISO time with its zone, as of an event or of S3's LastModified): what was
    seen earlier never replaces what was seen later. None: the source cannot tell. `credit` is whom to name where the
    picture is shown. `outside`: the address is not the
    operator's own, but came from a document on the web or an event; see lookalike/guard.py.
    """

    key: str
    url: str
    protocol: Protocol = "file"
    work: str | None = None
    title: str | None = None
    licence: str | None = None
    access: str | None = None
    content: str | None = None
    source: str | None = None
    digitised: str | None = None
    as_of: str | None = None
    outside: bool = False
    credit: str | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """Images that are gone: the one with this `key`, or all of a `work` but those whose keys are `kept`.

    With a `url`, the image of that key is only gone if that is where it is fetched from: a rule that gives several
    objects one key lets a later one take the place of an earlier. `as_of` is when it was gone, as in Image; None: now.
    `own_only`: somebody says so of a work that lies elsewhere, and is believed for what he announced; see ledger.md.
    """

    key: str | None = None
    url: str | None = None
    work: str | None = None
    kept: frozenset[str] = frozenset()
    as_of: str | None = None
    own_only: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A record of a source that did not become an image. `where` names it as well as the source can."""

    where: str
    reason: Reason
    detail: str = ""


Position = Mapping[str, object]
"""Where a source has got to, as JSON; each kind of source has its own words. It is kept with what was read so far."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that the source has yielded so far is behind this position: opened with it, the source goes on from here.

    A `lasting` one counts beyond the end of the source, which is a stream that is read on later.
    """

    position: Position
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class AwaitedManifest:
    """A manifest that an event has promised, or that a source names and whose host fails for the moment.

    `identifier` is the archive's own name of what it shows. What is there by now is of `version`, or of one that nobody
    named. `as_of` is the time of the event, as in Image. `outside`: the address is somebody else's word. `whole`: it is
    all of its work, so that what it no longer shows is gone, and so is what is left where it was `moved_from`.
    `described` is what a catalogue says of all its images, as fields of an Image. `source` is what names it, where it
    does not file its images under a name of their own. `detail` is how its host failed.
    """

    address: str
    identifier: str
    version: str | None
    as_of: str | None
    outside: bool = False
    whole: bool = True
    moved_from: str | None = None
    described: Mapping[str, str] = field(default_factory=dict)
    source: str | None = None
    detail: str = ""


Announcement = Image | Refused
Notice = Announcement | Removal | AwaitedManifest | Checkpoint
