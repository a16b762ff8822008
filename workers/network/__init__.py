"""The one package that imports torch: resizing, networks with their weights, from uint8 pixels to vectors.

It never fails a batch for one bad row, and never changes what a network says: each of its speed-ups is held
to the unchanged network by a test.
"""

from workers.network.device import DeviceUse, read_use
from workers.network.encoder import Encoded, Encoder, load_encoder
from workers.network.fingerprint import Fingerprint, check_fingerprint
from workers.network.resizing import resize
from workers.network.runtime import is_fatal

__all__ = [
    "DeviceUse",
    "Encoded",
    "Encoder",
    "Fingerprint",
    "check_fingerprint",
    "is_fatal",
    "load_encoder",
    "read_use",
    "resize",
]
