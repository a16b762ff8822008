"""Forms that a picture comes with: one file, which lies on disk, and a few short words, which are held in memory."""

from contextlib import AbstractAsyncContextManager

from fastapi import Request
from starlette.datastructures import FormData

FIELDS = 10
# An address has up to 4,000 characters, each of up to four bytes.
FIELD_BYTES = 16 * 1024


def picture_form(request: Request) -> AbstractAsyncContextManager[FormData]:
    """The form of a request, while the block lasts. Raises HTTPException for one with more files or longer words: the
    body may be as long as a picture, and words and small files of that length would be held in memory.
    """
    return request.form(max_files=1, max_fields=FIELDS, max_part_size=FIELD_BYTES)
