"""What a source announces: images, and records that it had to refuse."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Refused:
    """A record of a source that did not become an image. `where` names it as well as the source can."""

    where: str
    reason: Reason
    detail: str = ""


Announcement = Image | Refused
