"""Shape and colours of a picture: of the whole of it, upright, in sRGB, and the same on every machine."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from lookalike.calibration import Calibration
from lookalike.encoders import ENCODERS
from lookalike.ledger import ChunkImage
from lookalike.vectors import Appearance
from tests.pictures import jpeg, photographs
from workers.appearance import Glimpse, appearances_of
from workers.decode import decode
from workers.pipeline import Encoding, Work

PREPROCESSING = ENCODERS["efficientnet-lite0"].preprocessing
RED, WHITE, BLUE = (200, 60, 50), (250, 250, 248), (20, 40, 160)


def look(data: bytes) -> Appearance:
    crop = PREPROCESSING.crop
    return appearances_of([decode(data, PREPROCESSING, np.empty((crop, crop, 3), np.uint8), 10**8)])[0]


def png(picture: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def flag() -> Image.Image:
    """1,200 x 300 pixels: a sixth of red at the left, a third of blue at the right, white between."""
    pixels = np.full((300, 1200, 3), WHITE, np.uint8)
    pixels[:, :200], pixels[:, 800:] = RED, BLUE
    return Image.fromarray(pixels)


def colour(name: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(name[1:]), np.uint8).astype(int)


def difference(a: Appearance, b: Appearance) -> int:
    """The largest difference of the average colours, in grey levels."""
    return int(np.abs(colour(a.average_colour) - colour(b.average_colour)).max())


def test_colours_are_those_of_the_whole_picture() -> None:
    """Colours at the edges count, though the network's crop shows only the middle; the largest share comes first."""
    seen = look(png(flag()))

    assert seen.aspect_ratio == 4
    assert seen.palette == ("#fafaf8", "#1428a0", "#c83c32")
    assert seen.palette_shares == pytest.approx((1 / 2, 1 / 3, 1 / 6), abs=0.03)
    assert np.abs(colour(seen.average_colour) - (165, 148, 186)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_measured_upright(orientation: int) -> None:
    """EXIF orientations 5 to 8 exchange width and height."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    flag().save(buffer, "JPEG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue())))

    assert look(buffer.getvalue()).aspect_ratio == pytest.approx(upright.width / upright.height)


def test_the_ratio_is_that_of_the_file_and_not_of_its_reduced_decode() -> None:
    """1,203 x 1,601 pixels are decoded at half their size, whose sides are rounded up."""
    assert look(jpeg(Image.new("RGB", (1203, 1601), RED))).aspect_ratio == 1203 / 1601


def test_shares_add_up_and_fall() -> None:
    """Up to five colours, as '#rrggbb', and shares whose sum is 1, for any photograph."""
    for photograph in photographs()[:40]:
        seen = look(jpeg(photograph))
        assert 1 <= len(seen.palette) == len(seen.palette_shares) <= 5
        assert sum(seen.palette_shares) == pytest.approx(1)
        assert list(seen.palette_shares) == sorted(seen.palette_shares, reverse=True)
        assert all(len(name) == 7 and name == name.lower() for name in (seen.average_colour, *seen.palette))


def test_equal_bytes_give_equal_colours() -> None:
    """What a picture made by code looks like is the same in every process and on every machine."""
    y, x = np.mgrid[:240, :320]
    pixels = np.stack([x * 255 // 319, y * 255 // 239, (x * y) % 256], axis=-1).astype(np.uint8)
    data = png(Image.fromarray(pixels))

    assert look(data) == look(data)
    assert look(data) == GOLDEN


GOLDEN = Appearance(
    4 / 3,
    "#7f7f82",
    ("#849e70", "#6673ab", "#c12cb0", "#6bd730", "#5c30a1"),
    (417 / 1024, 189 / 1024, 152 / 1024, 138 / 1024, 128 / 1024),
    bytes.fromhex(
        "121c242830383c444a51545d222a2f373c424951565d636a2f363c45484f565c626a6f763b43494f565b626a6f777d83"
        "4a4d565d606a6e767c828790545b62686f747b828990959d62676e747a81888f939ba1a671757b84878c959ba0a5afb5"
        "797f878c939da3a9aeb4b9bf898d9498a1a9aeb5bac0c7ce959aa2a6acb5bac1c7ccd3dba1a6adb3b8c1c7ced4d9e0e7"
    ),
)


def test_the_average_hardly_depends_on_the_size() -> None:
    """The same photograph at half its size, and as its own JPEG, has nearly the same average colour."""
    for photograph in map(without_profile, photographs()[:20]):
        whole = look(png(photograph))
        half = photograph.resize((photograph.width // 2, photograph.height // 2), Image.Resampling.BOX)
        assert difference(whole, look(png(half))) <= 8
        assert difference(whole, look(jpeg(photograph))) <= 6


def without_profile(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture))


def test_colours_are_in_srgb() -> None:
    """An embedded profile is applied: here the one of sRGB with red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped = Image.merge("RGB", flag().split()[::-1])

    assert difference(look(png(flag())), look(png(swapped, icc_profile=bytes(profile)))) <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_kind_of_picture_has_colours(mode: str) -> None:
    """Grey ones have greys, transparent ones show white paper, CMYK is in sRGB."""
    picture = flag().convert("L").convert(mode) if mode in ("1", "LA") else flag().convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "TIFF")
    seen = look(buffer.getvalue())

    assert seen.aspect_ratio == 4
    if mode in ("1", "L", "LA"):
        assert all(len(set(colour(name))) == 1 for name in seen.palette)
    else:
        assert difference(seen, look(png(flag()))) <= 8


def test_a_page_is_paper_and_ink() -> None:
    """Tints of one paper are one colour: they do not take all the places of the palette."""
    random = np.random.default_rng(0)
    pixels = random.normal((235, 225, 200), 4, (400, 300, 3)).clip(0, 255)
    pixels[::8, 40:260] = (50, 45, 40)
    seen = look(png(Image.fromarray(pixels.astype(np.uint8))))

    assert len(seen.palette) == 2
    assert np.abs(colour(seen.palette[0]) - (235, 225, 200)).max() <= 3


def test_appearances_keep_to_their_images() -> None:
    """Whatever order a chunk's images are done in, each appearance stands beside the vector of its image."""
    images = [ChunkImage(number, f"{number}", "", "file", 1) for number in (1, 2, 3)]
    work = Work(images)
    glances = {0: RED, 2: BLUE}
    for index in (2, 0):
        samples = np.full((96, 96, 3), glances[index], np.uint8)
        work.store(
            index,
            Encoding(bytes(32), np.eye(8, dtype=np.float32)[index], None, Glimpse(1.0 + index, samples)),
        )
    calibration = Calibration(np.eye(8, dtype=np.float16), np.zeros(8, np.float32))
    vectors = work.vectors(calibration)

    assert vectors.image_ids.tolist() == [1, 3]
    assert vectors.appearances is not None
    found = [(one.aspect_ratio, one.average_colour) for one in vectors.appearances if one]
    assert found == [(1.0, "#c83c32"), (3.0, "#1428a0")]


def test_a_chunk_gives_what_each_image_alone_gives() -> None:
    """The colours of a picture do not depend on its company."""
    crop = PREPROCESSING.crop
    out = np.empty((crop, crop, 3), np.uint8)
    glances = [decode(jpeg(picture), PREPROCESSING, out, 10**8) for picture in photographs()[:12]]

    assert appearances_of(glances) == [appearances_of([one])[0] for one in glances]
    assert appearances_of([]) == []


def test_the_miniature_is_the_whole_picture_upright() -> None:
    """12 x 12 greys: the luma of a flag's stripes, and turned as EXIF says."""
    seen = np.frombuffer(look(png(flag())).miniature, np.uint8).reshape(12, 12)
    red, white, blue = (round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in (RED, WHITE, BLUE))
    assert np.abs(seen[:, [0, 1, 5, 11]].astype(int) - (red, red, white, blue)).max() <= 1
    exif = Image.Exif()
    exif[0x0112] = 3
    buffer = io.BytesIO()
    flag().save(buffer, "JPEG", exif=exif, quality=95)
    turned = np.frombuffer(look(buffer.getvalue()).miniature, np.uint8).reshape(12, 12)
    assert np.abs(turned[::-1, ::-1].astype(int) - seen).max() <= 6
