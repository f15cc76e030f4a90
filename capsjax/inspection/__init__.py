"""What happens inside a trained network, as arrays: for pictures, for sliders, for a closer look.

All take a ``Run``, as ``capsjax.load`` and ``capsjax.load_pretrained`` give one, and uint8 images
``[N, H, W, C]`` from 0 to 255; all give NumPy arrays.
"""

from capsjax.inspection.attacking import attacked
from capsjax.inspection.decoding import OFFSETS, Decode, decoder, perturbed
from capsjax.inspection.fields import fields
from capsjax.inspection.seeing import Seen, capsule_layers, last_routing, layers, see
from capsjax.inspection.turning import ByAngle, by_angle, moved

__all__ = [
    "OFFSETS",
    "ByAngle",
    "Decode",
    "Seen",
    "attacked",
    "by_angle",
    "capsule_layers",
    "decoder",
    "fields",
    "last_routing",
    "layers",
    "moved",
    "perturbed",
    "see",
]
