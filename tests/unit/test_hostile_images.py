"""Files that were made to break a decoder: each is a picture or a reason, in bounded time and memory."""

import io
import random
import struct
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from bench.child import Device
from bench.usage import measure_memory, reset_memory
from lookalike.encoders import Preprocessing
from lookalike.errors import ImageError
from lookalike.ledger import ChunkImage
from lookalike.reasons import Reason
from lookalike.settings import Settings
from tests.pictures import SHARED, photographs
from workers.decode import decode
from workers.fetch import Fetcher
from workers.pipeline import Pipeline

PREPROCESSING = Preprocessing(64, 64, "bilinear", (0.5,) * 3, (0.5,) * 3)
DECODING = frozenset(
    {Reason.EMPTY, Reason.NOT_AN_IMAGE, Reason.TRUNCATED, Reason.BOMB, Reason.TOO_SMALL, Reason.UNSUPPORTED}
    | {Reason.CORRUPT, Reason.HTML_PAGE}
)
MAX_PIXELS = 25_000_000
SECONDS = 2.0
MEMORY = 400 * 2**20

Bytes = Callable[[], bytes]
# Pillow warns of damaged metadata, and of formats on their way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def outcome(data: bytes) -> str:
    """Decodes within the limits of time and memory; returns "done" or the reason."""
    out = np.full((64, 64, 3), 7, np.uint8)
    reset_memory()
    before, since = measure_memory(), time.thread_time()
    try:
        decode(data, PREPROCESSING, out, MAX_PIXELS)
        found = "done"
    except ImageError as error:
        found = str(error.reason)
    assert found in {"done", *map(str, DECODING)}
    assert time.thread_time() - since < SECONDS
    assert measure_memory() - before < MEMORY
    return found


@cache
def seeds() -> dict[str, bytes]:
    """A valid file of each kind that is decoded, some 200 x 150 pixels."""
    picture = photographs()[0].resize((200, 150))
    kinds: dict[str, tuple[str, dict[str, object], str]] = {
        "jpeg": ("JPEG", {"quality": 85}, "RGB"),
        "progressive": ("JPEG", {"progressive": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"}, "RGB"),
        "cmyk": ("JPEG", {}, "CMYK"),
        "png": ("PNG", {}, "RGB"),
        "palette": ("PNG", {"transparency": 3}, "P"),
        "tiff": ("TIFF", {}, "RGB"),
        "lzw": ("TIFF", {"compression": "tiff_lzw"}, "RGB"),
        "tiff in jpeg": ("TIFF", {"compression": "jpeg"}, "RGB"),
        "fax": ("TIFF", {"compression": "group4"}, "1"),
        "webp": ("WEBP", {}, "RGB"),
        "lossless": ("WEBP", {"lossless": True}, "RGBA"),
        "gif": ("GIF", {}, "P"),
        "jpeg 2000": ("JPEG2000", {}, "RGB"),
        "bmp": ("BMP", {}, "RGB"),
        "ppm": ("PPM", {}, "RGB"),
        "avif": ("AVIF", {}, "RGB"),
    }
    files = {}
    for name, (form, options, mode) in kinds.items():
        buffer = io.BytesIO()
        picture.convert(mode).save(buffer, form, **options)
        files[name] = buffer.getvalue()
    return files


# Numbers that headers hold sizes in, as the largest and other awkward ones.
AWKWARD = [0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 50_000, 0x7FFFFFFF, 0xFFFFFFFF, 5000]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A valid file, damaged up to five times: cut off, bytes flipped, numbers replaced, parts of another put in."""
    files = sorted(seeds().items())
    data = bytearray(draw(st.sampled_from(files))[1])
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.one_of(st.integers(0, min(256, len(data))), st.integers(0, len(data))))
        damage = draw(st.sampled_from(["cut", "flip", "number", "swap", "repeat", "remove"]))
        if damage == "cut":
            del data[at:]
        elif damage == "flip":
            for place in range(at, min(len(data), at + draw(st.integers(1, 8)))):
                data[place] ^= draw(st.integers(1, 255))
        elif damage == "number":
            form = draw(st.sampled_from([">I", "<I", ">H", "<H"]))
            value = draw(st.sampled_from(AWKWARD)) % 2 ** (8 * struct.calcsize(form))
            data[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif damage == "swap":
            other = draw(st.sampled_from(files))[1]
            data[:at] = other[: draw(st.integers(0, 256))]
        elif damage == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 50))
        else:
            del data[at : at + draw(st.integers(1, 64))]
    return bytes(data)


def hunt(examples: int) -> None:
    @hypothesis_settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(mutants())
    def look(data: bytes) -> None:
        outcome(data)

    look()


def test_damaged_files_are_pictures_or_reasons() -> None:
    """Mutants of every format: never another error, more than two seconds of CPU, or hundreds of megabytes."""
    hunt(250)


@pytest.mark.slow
def test_many_damaged_files_are_pictures_or_reasons() -> None:
    """The same for many more mutants."""
    hunt(10_000)


@pytest.mark.parametrize("kind", sorted(seeds()))
def test_seeds_are_whole(kind: str) -> None:
    """What the mutants are made from is decoded, and what is cut off in the middle is refused."""
    assert outcome(seeds()[kind]) == "done"
    assert outcome(seeds()[kind][: len(seeds()[kind]) // 2]) != "done"


# ---------------------------------------------------------------------------------------------------- made to cost


def scans() -> bytes:
    """A progressive JPEG of 24 megapixels whose last scan, of some 70 bytes, is there ten thousand times."""
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 4000)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * 10_000 + b"\xff\xd9"


def comments() -> bytes:
    """A bitmap written as text, with a comment between any two pixels: Pillow took 50 s for it."""
    return b"P1 1000 1000\n" + b"1#\n" * 1_000_000


def tiff(*entries: tuple[int, int, int, int], tail: int = 0) -> bytes:
    """A little-endian TIFF of 16 x 1,000,000 grey pixels with these entries as well, and so many zeros after them."""
    usual = [(256, 3, 1, 16), (257, 4, 1, 1_000_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    listed = sorted(usual + list(entries))
    packed = b"".join(struct.pack("<HHII", *entry) for entry in listed)
    return b"II*\0" + struct.pack("<IH", 8, len(listed)) + packed + bytes(4 + tail)


def strips() -> bytes:
    """A strip for each of two million rows, as 8 MB of offsets."""
    return tiff((273, 4, 2_000_000, 100), (278, 4, 1, 1), (279, 4, 2_000_000, 100), tail=8_000_000)


def samples() -> bytes:
    """Twenty million numbers of bits for a pixel that has one."""
    return tiff((273, 4, 1, 100), (278, 4, 1, 1_000_000), (339, 3, 20_000_000, 100), tail=40_000_000)


def colours() -> bytes:
    """A picture whose numbers are out of a hundred, which Pillow converts in Python."""
    return b"P6 1200 1200 100\n" + bytes(3 * 1200 * 1200)


def runs() -> bytes:
    """A bitmap in runs of one pixel, which Pillow unpacks in Python."""
    header = struct.pack("<IiiHHIIiiII", 40, 2000, 2000, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(1024) + b"\1\5" * 4_000_000 + b"\0\1"


def metadata() -> bytes:
    """A PNG whose EXIF block says its orientation sixteen million times."""
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x0112, 3, 16_000_000, 26) + bytes(32_000_004)
    buffer = io.BytesIO()
    photographs()[0].save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


COSTLY: dict[str, tuple[Bytes, str]] = {
    "scans": (scans, "bomb"),
    "comments": (comments, "unsupported"),
    "strips": (strips, "bomb"),
    "samples": (samples, "bomb"),
    "colours": (colours, "unsupported"),
    "runs": (runs, "unsupported"),
    "metadata": (metadata, "done"),
}


@pytest.mark.parametrize("trick", COSTLY)
def test_files_made_to_cost_are_refused_by_their_header(trick: str) -> None:
    """Small files that decoders would work on for minutes, or with gigabytes."""
    make, expected = COSTLY[trick]
    assert outcome(make()) == expected


def test_formats_that_nobody_digitises_with_are_never_opened() -> None:
    """EPS would start Ghostscript; DDS, BLP and others take seconds and hundreds of megabytes."""
    picture = photographs()[0].resize((64, 64))
    for form in ("EPS", "DDS", "ICO", "ICNS", "TGA", "PCX", "SGI", "IM", "PDF", "SPIDER", "MSP", "XBM"):
        buffer = io.BytesIO()
        mode = "1" if form in ("MSP", "XBM") else "F" if form == "SPIDER" else "RGB"
        picture.convert(mode).save(buffer, form)
        assert outcome(buffer.getvalue()) in ("unsupported", "not_an_image"), form


def test_the_modes_of_the_shared_pictures() -> None:
    """Where they are beside the checkout, each is a picture."""
    paths = [path for path in sorted((SHARED / "edits" / "modes").glob("*.*")) if path.suffix != ".md"]
    assert {path.name: outcome(path.read_bytes()) for path in paths} == {path.name: "done" for path in paths}


def test_the_stages_of_a_worker_outlive_odd_files(tmp_path: Path) -> None:
    """Whole, damaged and costly files through the real stages: each ends in one way, and the next chunk is done."""
    files = {
        f"{kind}-{cut}": data[: len(data) * cut // 4] for kind, data in seeds().items() for cut in range(5)
    }
    files |= {trick: make() for trick, (make, _) in COSTLY.items()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    encoder: Any = Device(0, 8)
    configuration = Settings(_env_file=None, max_pixels=MAX_PIXELS, decode_threads=2, fetch_threads=4)
    pipeline = Pipeline(configuration, Fetcher(configuration), encoder)
    images = [ChunkImage(n, name, str(tmp_path / name), "file", 1) for n, name in enumerate(files)]
    work = pipeline.submit(images)
    work.wait()
    failed = {failure.image.key: failure.reason for failure in work.failures}
    again = pipeline.submit([image for image in images if image.key not in failed])
    again.wait()

    assert set(failed.values()) <= DECODING
    assert {name for name in files if name not in failed} >= {f"{kind}-4" for kind in seeds()}
    assert not again.failures


def test_noise_is_no_picture() -> None:
    """Random bytes behind each magic number, as a disk error leaves them."""
    noise = random.Random(0).randbytes(5000)
    for data in seeds().values():
        assert outcome(data[:12] + noise) != "done"
        assert outcome(data[:64] + noise) in {str(reason) for reason in DECODING} | {"done"}
