"""Makes an image of an S3 object: one place for listings, inventories and events. It asks no server.

Which objects are images is said by LOOKALIKE_SUFFIXES, what they are called by LOOKALIKE_S3_KEY.
"""

import re

from lookalike.images import Announcement, Image, Refused
from lookalike.reasons import Reason
from lookalike.settings import Settings
from orchestrator.sources.records import announce, has_image_suffix, image_suffixes, printable


class Objects:
    """The rules of the settings for objects."""

    def __init__(self, settings: Settings) -> None:
        self._suffixes = image_suffixes(settings)
        self._rule = re.compile(settings.s3_key)
        self._names_works = "work" in self._rule.groupindex

    def is_image(self, name: str) -> bool:
        """Says whether the name of an object ends as images do."""
        return has_image_suffix(name, self._suffixes)

    def announce(
        self, bucket: str, name: str, size: int | None, etag: str | None, as_of: str | None
    ) -> Announcement:
        """Returns the image that an object is, or Refused where it has zero bytes or no key.

        The address is `s3://bucket/name` with the raw name (nothing is percent-encoded), content is the ETag
        without quotes. `size` in bytes and `etag` are None where they are not known; `as_of` as in Image.
        """
        where = f"s3://{bucket}/{name}"
        if size == 0:
            return Refused(printable(where), Reason.EMPTY, "the object has zero bytes")
        found = self._rule.search(where, len("s3://"))
        if found is None or not (key := found["key"]):
            return Refused(
                printable(where), Reason.BAD_RECORD, "LOOKALIKE_S3_KEY finds no key in bucket/path"
            )
        work = found["work"] if self._names_works else None
        content = etag.strip('"') if etag else None
        return announce(where, where, key=key, work=work, content=content, as_of=as_of, outside=False)

    def address_and_key(self, bucket: str, name: str) -> tuple[str, str] | None:
        """Returns the address and the key of an object that was deleted; None for what was never an image."""
        found = self.announce(bucket, name, None, None, None) if self.is_image(name) else None
        return (found.url, found.key) if isinstance(found, Image) else None
