"""Colour charts and blank pages, as they are photographed beside and between the objects of an archive."""

import numpy as np
from PIL import Image, ImageDraw


def colour_chart(number: int) -> Image.Image:
    """A chart with rows of coloured patches on grey or black, a little turned, in a light of its own, with grain."""
    random = np.random.default_rng([1, number])
    rows, columns = ((4, 6), (3, 6), (2, 9), (4, 8))[number % 4]
    ground = int(random.integers(15, 70))
    size = (columns * 60 + 40, rows * 60 + 40)
    picture = Image.new("RGB", size, (ground, ground, ground))
    draw = ImageDraw.Draw(picture)
    for patch in range(rows * columns):
        left, top = 25 + patch % columns * 60, 25 + patch // columns * 60
        # The last row is a grey wedge, as on most charts.
        grey = int(245 - patch % columns * 220 / columns)
        colour = (grey,) * 3 if patch // columns == rows - 1 else tuple(random.integers(20, 240, 3).tolist())
        draw.rectangle((left, top, left + 50, top + 50), fill=colour)
    turned = picture.rotate(random.uniform(-4, 4), Image.Resampling.BICUBIC, expand=True, fillcolor="#b9b4a8")
    return _photograph(turned, random)


def blank_page(number: int) -> Image.Image:
    """A page with nothing on it: the tone of paper, darker towards the fold, with stains and grain."""
    random = np.random.default_rng([2, number])
    width, height = 380, int(random.integers(480, 560))
    paper = np.array([random.integers(215, 246), random.integers(205, 232), random.integers(180, 212)])
    shade = 1 - random.uniform(0.05, 0.25) * np.linspace(1, 0, width) ** 3
    page = np.broadcast_to(shade[None, :, None] * paper, (height, width, 3)).clip(0, 255).astype(np.uint8)
    picture = Image.fromarray(page if number % 2 else page[:, ::-1])
    draw = ImageDraw.Draw(picture)
    for _ in range(random.integers(0, 12)):
        x, y, r = random.integers(0, width), random.integers(0, height), random.integers(1, 5)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple((paper * 0.85).astype(int).tolist()))
    return _photograph(picture, random)


def _photograph(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """The picture in a light of its own, with the grain of a camera."""
    light = random.uniform(0.85, 1.05) * random.uniform(0.96, 1.04, 3)
    seen = np.asarray(picture) * light + random.normal(
        0, random.uniform(2, 6), (picture.height, picture.width, 1)
    )
    return Image.fromarray(seen.clip(0, 255).astype(np.uint8))
