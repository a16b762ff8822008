"""The one file that imports torch: resizing on tensors, loading networks, and the forward pass."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray


def resize(pixels: NDArray[np.uint8], height: int, width: int, interpolation: str) -> NDArray[np.uint8]:
    """Resizes `pixels` (uint8, height x width x 3) with antialiasing; "bilinear" or "bicubic"."""
    image = torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)
    resized = F.interpolate(image, (height, width), mode=interpolation, antialias=True, align_corners=False)
    return np.asarray(resized[0].permute(1, 2, 0).numpy())
