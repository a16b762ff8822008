"""Tells by its first bytes what a file is: an error page, an image that nobody here reads, or no image at
all.

Content types and file names are never asked: both lie.
"""

from lookalike.errors import ImageError
from lookalike.reasons import Reason

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Formats that decoders here read: damaged when they cannot even be identified.
_READABLE = (b"\xff\xd8\xff", _PNG, b"GIF87a", b"GIF89a", b"BM", b"8BPS", *_JPEG_2000)
_UNREADABLE = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"%!PS": "PostScript",
    b"AT&TFORM": "DjVu",
    b"DDS ": "DDS",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE  =": "FITS",
    b"\0\0\x01\0": "ICO",
    b"icns": "ICNS",
    b"qoif": "QOI",
    b"gimp xcf": "XCF",
}
# ISO base media files (HEIF, AVIF and all of video) say in their second box which they are.
_STILL_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis")


def refuse_non_images(data: bytes) -> None:
    """Raises ImageError for zero bytes (EMPTY) and markup (SVG: UNSUPPORTED, else HTML_PAGE)."""
    if not data:
        raise ImageError(Reason.EMPTY)
    start = data[:1024]
    for mark in _BYTE_ORDER_MARKS:
        start = start.removeprefix(mark)
    text = start.replace(b"\0", b"").lstrip().lower()  # the zeros are those of UTF-16
    if not text.startswith(b"<") or start.startswith(b"\0"):
        return
    if b"<svg" in text:
        raise ImageError(Reason.UNSUPPORTED, "SVG")
    raise ImageError(Reason.HTML_PAGE, "the file is HTML or XML")


def unidentified(data: bytes) -> ImageError:
    """Returns what to raise for a file that no decoder took for its own."""
    if data[4:8] == b"ftyp" and data[8:12] in _STILL_BRANDS:
        return ImageError(Reason.UNSUPPORTED, f"{data[8:12].decode()} (HEIF or AVIF), or a damaged one")
    for magic, name in _UNREADABLE.items():
        if data.startswith(magic):
            return ImageError(Reason.UNSUPPORTED, name)
    if data.startswith(_TIFF):
        return ImageError(Reason.UNSUPPORTED, "a kind of TIFF that no decoder knows, or a damaged one")
    if data.startswith(_READABLE) or _is_webp(data):
        reason = Reason.TRUNCATED if ends_early(data) else Reason.CORRUPT
        return ImageError(reason, "the header cannot be read")
    return ImageError(Reason.NOT_AN_IMAGE, f"begins with {data[:8].hex(' ')}")


def ends_early(data: bytes) -> bool:
    """Says whether a file lacks the end that its format calls for. Only for files that a decoder refused."""
    if data.startswith(_PNG):
        return b"IEND" not in data[-1024:]
    if data.startswith(_JPEG_2000):
        return b"\xff\xd9" not in data[-1024:]
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data[-1024:]
    return _is_webp(data) and int.from_bytes(data[4:8], "little") + 8 > len(data)


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"
