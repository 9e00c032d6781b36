"""A Whisper of the published form with few, random weights: its files as upstream publishes them.

What it says means nothing, but all that the exporter and the recogniser compute can be compared
with the float model.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, HEADS, HEAD_DIM = 4, 6, 8  # four layers, so that the alignment heads of "tiny" exist
WIDTH, HIDDEN, MELS, WINDOW, POSITIONS = HEADS * HEAD_DIM, 96, 80, 1500, 448
LANGUAGES = ("en", "zh", "de", "fr")
MERGES = ("Ġthe", "Ġund", "Ġun", "able", "bel", "iev", "ing", "Ġmot", "Ġ?", "ðŁ", "æĹ¥", "æľ¬")
SPECIAL = (
    *("<|endoftext|>", "<|startoftranscript|>"),
    *(f"<|{language}|>" for language in LANGUAGES),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"),
    *("<|notimestamps|>", "<|0.00|>", "<|0.02|>"),
)
_TYPES = {np.float32: 0, np.int8: 1, np.int16: 2, np.float16: 4}


def pieces() -> list[str]:
    """The vocabulary: all bytes as GPT-2's tokeniser writes them, a few longer pieces, and special
    tokens."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = range(256 - len(printable))
    letters = [chr(byte) for byte in printable] + [chr(0x100 + n) for n in others]
    return [*letters, *MERGES, *SPECIAL]


def write(folder: Path, seed: int = 3) -> None:
    """Writes model.bin, config.json and vocabulary.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    variables = _variables(np.random.default_rng(seed))
    (folder / "model.bin").write_bytes(model_bin(variables))
    tokens = pieces()
    (folder / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    suppressed = [tokens.index("("), *range(tokens.index(SPECIAL[1]), len(tokens))]
    config = {
        "suppress_ids": suppressed,
        "suppress_ids_begin": [tokens.index("Ġ"), tokens.index(SPECIAL[0])],
    }
    (folder / "config.json").write_text(json.dumps(config))


def model_bin(variables: dict[str, Any]) -> bytes:
    """The bytes of CTranslate2's format. The output projection is an alias of the embedding."""
    out = [struct.pack("<I", 6), _text("WhisperSpec"), struct.pack("<I", 3)]
    out.append(struct.pack("<I", len(variables)))
    for name, value in variables.items():
        array = np.asarray(value)
        out += [_text(name), struct.pack("<B", array.ndim)]
        out += [struct.pack("<I", size) for size in array.shape]
        out += [struct.pack("<BI", _TYPES[array.dtype.type], array.nbytes), array.tobytes()]
    out.append(struct.pack("<I", 1))
    out += [_text("decoder/projection/weight"), _text("decoder/embeddings/weight")]
    return b"".join(out)


def _text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def _variables(random: np.random.Generator) -> dict[str, Any]:
    def weight(*shape: int, scale: float | None = None) -> Any:
        inputs = int(np.prod(shape[1:]))
        return (random.standard_normal(shape) * (scale or inputs**-0.5)).astype(np.float16)

    def linear(place: str, outputs: int, inputs: int) -> dict[str, Any]:
        return {
            f"{place}/weight": weight(outputs, inputs),
            f"{place}/bias": weight(outputs, scale=0.1),
        }

    def norm(place: str) -> dict[str, Any]:
        gamma = 1 + weight(WIDTH, scale=0.1)
        return {f"{place}/gamma": gamma, f"{place}/beta": weight(WIDTH, scale=0.1)}

    found: dict[str, Any] = {
        "encoder/num_heads": np.int16(HEADS),
        "encoder/conv1/weight": weight(WIDTH, MELS, 3),
        "encoder/conv1/bias": weight(WIDTH, scale=0.1),
        "encoder/conv2/weight": weight(WIDTH, WIDTH, 3),
        "encoder/conv2/bias": weight(WIDTH, scale=0.1),
        "encoder/position_encodings/encodings": weight(WINDOW, WIDTH, scale=0.3),
        "decoder/position_encodings/encodings": weight(POSITIONS, WIDTH, scale=0.3),
        "decoder/embeddings/weight": weight(len(pieces()), WIDTH, scale=0.4),
        **norm("encoder/layer_norm"),
        **norm("decoder/layer_norm"),
    }
    for side in ("encoder", "decoder"):
        for layer in range(LAYERS):
            place = f"{side}/layer_{layer}"
            found |= norm(f"{place}/self_attention/layer_norm")
            found |= linear(f"{place}/self_attention/linear_0", 3 * WIDTH, WIDTH)
            found |= linear(f"{place}/self_attention/linear_1", WIDTH, WIDTH)
            found |= norm(f"{place}/ffn/layer_norm")
            found |= linear(f"{place}/ffn/linear_0", HIDDEN, WIDTH)
            found |= linear(f"{place}/ffn/linear_1", WIDTH, HIDDEN)
            if side == "decoder":
                found |= norm(f"{place}/attention/layer_norm")
                found |= linear(f"{place}/attention/linear_0", WIDTH, WIDTH)
                found |= linear(f"{place}/attention/linear_1", 2 * WIDTH, WIDTH)
                found |= linear(f"{place}/attention/linear_2", WIDTH, WIDTH)
    return found
