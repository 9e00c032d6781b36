"""Headers of MPEG audio frames, to find an MP3 file's first one behind something else."""

from __future__ import annotations

_BIT_RATES = {  # kbit/s by version and layer (ISO/IEC 11172-3 and 13818-3), index 1 to 14
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def frame_bytes(head: bytes) -> int:
    """The size of the MPEG audio frame with this header; 0: it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return 0
    first = version == 3
    table = _BIT_RATES[1, layer] if first else _BIT_RATES[2, min(layer, 2)]
    per_second = table[bit_rate - 1] * 1000
    hertz = _RATES[version][rate]
    if layer == 1:
        return (12 * per_second // hertz + padding) * 4
    samples = 144 if first or layer == 2 else 72
    return samples * per_second // hertz + padding
