"""The eight ways to lay a picture on the glass: the four rotations of it, and of its mirror image."""

from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Turn(StrEnum):
    """How a picture is turned: mirrored left to right first, then rotated clockwise by so many degrees."""

    UPRIGHT = "upright"
    ROTATED_90 = "rotated 90"
    ROTATED_180 = "rotated 180"
    ROTATED_270 = "rotated 270"
    MIRRORED = "mirrored"
    MIRRORED_90 = "mirrored, rotated 90"
    MIRRORED_180 = "mirrored, rotated 180"
    MIRRORED_270 = "mirrored, rotated 270"

    @property
    def inverse(self) -> "Turn":
        """What undoes it. A mirrored turn undoes itself."""
        opposite = {Turn.ROTATED_90: Turn.ROTATED_270, Turn.ROTATED_270: Turn.ROTATED_90}
        return opposite.get(self, self)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The turned picture, a view: height x width x 3, or width x height x 3."""
        mirrored = pixels[:, ::-1] if self.startswith("mirrored") else pixels
        quarters = {"90": 1, "180": 2, "270": 3}.get(self.rpartition(" ")[2], 0)
        return np.rot90(mirrored, -quarters)
