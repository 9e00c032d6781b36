"""The form of a Moonshine streaming model: sizes, tensors of the graphs, and how they are compared.

Nobody has run the published files in edged yet. So every file is compared with this form before it
is used, and one that differs is refused with the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edged.errors import ModelError

CONFIG = "streaming_config.json"
TOKENIZER = "tokenizer.bin"
FRONTEND, FRONTEND_MODEL, FRONTEND_WEIGHTS = (
    "frontend.ort",
    "frontend.model.ort",
    "frontend.weights.ort",
)
UPSTREAM_ENCODER, UPSTREAM_DECODER = "encoder.ort", "decoder_kv.ort"
ADAPTER, CROSS_KV = "adapter.ort", "cross_kv.ort"

FRAME_SAMPLES = 320  # of 16 kHz in one encoder frame
PIECE_SAMPLES = 640  # the frontend is only right for multiples of this
LEFT_CONTEXT = 16  # encoder frames that each layer looks back
MAX_POSITIONS = 4096  # encoder frames of one segment (81.9 s): the adapter knows no more positions

_RAW_FRAME = 80  # samples
_LARGEST_SIZE = 1 << 16
FLOAT, INT = "float", "int64"

Shape: TypeAlias = tuple[int | None, ...]
Tensors: TypeAlias = Mapping[str, tuple[str, Shape]]
"""Element type and shape by name; None stands for any length."""


@dataclass(frozen=True)
class Sizes:
    """What `streaming_config.json` says.

    depth: layers of the encoder, and of the decoder. lookahead: encoder frames that must follow one
    before it is final. vocabulary: how many tokens there are.
    """

    encoder_dim: int
    decoder_dim: int
    depth: int
    heads: int
    head_dim: int
    vocabulary: int
    bos: int
    eos: int
    lookahead: int

    @property
    def left_context(self) -> int:
        """How many frames before a frame have an influence on it."""
        return LEFT_CONTEXT * self.depth

    @cached_property
    def kv_names(self) -> tuple[str, ...]:
        """Keys and values of each layer: k_0, v_0, k_1, ..."""
        return tuple(f"{kind}_{layer}" for layer in range(self.depth) for kind in ("k", "v"))

    @cached_property
    def states(self) -> dict[str, tuple[str, Shape]]:
        """What the frontend carries from one piece of audio to the next."""
        return {
            "sample_buffer": (FLOAT, (1, _RAW_FRAME - 1)),
            "sample_len": (INT, (1,)),
            "conv1_buffer": (FLOAT, (1, self.encoder_dim, 4)),
            "conv2_buffer": (FLOAT, (1, 2 * self.encoder_dim, 4)),
            "frame_count": (INT, (1,)),
        }

    def first_states(self) -> dict[str, NDArray[Any]]:
        """The states at the beginning of a segment: zeros."""
        kinds: dict[str, type[np.generic]] = {FLOAT: np.float32, INT: np.int64}
        return {
            name: np.zeros([n or 0 for n in shape], kinds[kind])
            for name, (kind, shape) in self.states.items()
        }

    def cache(self, length: int | None = None) -> tuple[str, Shape]:
        """Keys, or values, of all layers."""
        return (FLOAT, (self.depth, 1, self.heads, length, self.head_dim))


def read_config(path: Path) -> Sizes:
    """Reads `streaming_config.json`. Raises ModelError, which names the file and what is wrong."""
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}). Run `edged models fetch` to repair it."
        ) from None
    except (ValueError, RecursionError):
        raise ModelError(f"{path} is no JSON. Run `edged models fetch` to repair it.") from None
    if not isinstance(config, dict):
        raise wrong(path, "it is no object")

    def size(key: str, least: int = 1) -> int:
        value = config.get(key)
        if type(value) is not int or not least <= value <= _LARGEST_SIZE:
            raise wrong(path, f"{key} is {_shown(value)}, not a number of at least {least}")
        return value

    sizes = Sizes(
        encoder_dim=size("encoder_dim"),
        decoder_dim=size("decoder_dim"),
        depth=size("depth"),
        heads=size("nheads"),
        head_dim=size("head_dim"),
        vocabulary=size("vocab_size"),
        bos=size("bos_id", 0),
        eos=size("eos_id", 0),
        lookahead=size("total_lookahead", 0),
    )
    states = {name: list(shape) for name, (_, shape) in sizes.states.items()}
    wanted: dict[str, Any] = {
        "frame_len": _RAW_FRAME,
        "d_model_frontend": sizes.encoder_dim,
        "c1": 2 * sizes.encoder_dim,
        "c2": sizes.encoder_dim,
        "frontend_state_shapes": states,
    }
    for key, expected in wanted.items():
        if config.get(key) != expected:
            raise wrong(path, f"{key} is {_shown(config.get(key))} instead of {_shown(expected)}")
    for name, token in (("bos_id", sizes.bos), ("eos_id", sizes.eos)):
        if token >= sizes.vocabulary:
            raise wrong(path, f"{name} is {token}, but there are {sizes.vocabulary} tokens")
    return sizes


# ---- tensors of the graphs: (inputs, outputs) ---------------------------------------------------
def frontend_tensors(sizes: Sizes) -> tuple[Tensors, Tensors]:
    """Audio to features. The form in two files has weights as further inputs."""
    inputs = {"audio_chunk": (FLOAT, (1, None)), **sizes.states}
    outputs = {f"{name}_out": tensor for name, tensor in sizes.states.items()}
    return inputs, {"features": (FLOAT, (1, None, sizes.encoder_dim)), **outputs}


def encoder_tensors(sizes: Sizes) -> tuple[Tensors, Tensors]:
    """Features to encoder states: a window of frames, without a state."""
    frames = (FLOAT, (1, None, sizes.encoder_dim))
    return {"features": frames}, {"encoded": frames}


def adapter_tensors(sizes: Sizes) -> tuple[Tensors, Tensors]:
    """Encoder states, with their positions, to what the decoder attends to."""
    inputs = {"encoded": (FLOAT, (1, None, sizes.encoder_dim)), "pos_offset": (INT, (1,))}
    return inputs, {"memory": (FLOAT, (1, None, sizes.decoder_dim))}


def cross_kv_tensors(sizes: Sizes) -> tuple[Tensors, Tensors]:
    """The decoder's keys and values of that."""
    memory = (FLOAT, (1, None, sizes.decoder_dim))
    return {"memory": memory}, {"k_cross": sizes.cache(), "v_cross": sizes.cache()}


def decoder_inputs(sizes: Sizes) -> Tensors:
    """Of upstream's decoder. Its cross-attention keys and values are called `out_` although they
    are inputs."""
    names = ("k_self", "v_self", "out_k_cross", "out_v_cross")
    return {"token": (INT, (1, None)), **dict.fromkeys(names, sizes.cache())}


def decoder_tensors(sizes: Sizes) -> tuple[Tensors, Tensors]:
    """Upstream's decoder, which reads tokens one behind the other."""
    outputs = {
        "logits": (FLOAT, (1, None, sizes.vocabulary)),
        "out_k_self": sizes.cache(),
        "out_v_self": sizes.cache(),
    }
    return decoder_inputs(sizes), outputs


# ---- comparison ---------------------------------------------------------------------------------
def compare(
    path: Path, session: Any, tensors: tuple[Tensors, Tensors], with_weights: bool = False
) -> None:
    """Raises ModelError, with the first difference, if a graph does not have these tensors.

    session: of ONNX Runtime. with_weights: whether there may be further inputs. Further outputs do
    not matter; their lengths may be declared at will, because ONNX Runtime does not enforce them.
    """
    inputs, outputs = tensors
    _compare(path, "input", session.get_inputs(), inputs)
    _compare(path, "output", session.get_outputs(), outputs)
    for extra in session.get_inputs():
        if extra.name not in inputs and not with_weights:
            raise wrong(path, f"it has an input {extra.name!r} that is not known")


def compare_weights(
    path: Path, model_path: Path, model: Any, weights: Any, names: Iterable[str]
) -> None:
    """Raises ModelError unless the graph `weights` gives these inputs of `model`.

    path, model_path: their files. Where they disagree either of them may be the wrong one, so the
    error names both.
    """
    if weights.get_inputs():
        raise wrong(path, f"it has an input {weights.get_inputs()[0].name!r} that is not known")
    given = {value.name: (value.type, value.shape) for value in weights.get_outputs()}
    needed = {value.name: (value.type, value.shape) for value in model.get_inputs()}
    for name in names:
        if name not in given:
            raise wrong(path, f"there is no output {name!r}, an input of {model_path}")
        if given[name] != needed[name]:
            raise wrong(
                path,
                f"output {name!r} is {_described(*given[name])} instead of"
                f" {_described(*needed[name])}, as {model_path} has it",
            )


def _compare(path: Path, side: str, values: list[Any], tensors: Tensors) -> None:
    found = {value.name: value for value in values}
    for name, (kind, shape) in tensors.items():
        value = found.get(name)
        if value is None:
            raise wrong(path, f"there is no {side} {name!r}")
        has = _described(value.type, value.shape)
        wanted = _described(f"tensor({kind})", shape)
        right = value.type == f"tensor({kind})" and len(value.shape) == len(shape)
        if not right or not all(
            _fits(found, needed, side == "output")
            for found, needed in zip(value.shape, shape, strict=True)
        ):
            raise wrong(path, f"{side} {name!r} is {has} instead of {wanted}")


def _fits(found: Any, needed: int | None, output: bool) -> bool:
    """Whether a declared length allows the needed one. Names of lengths are anything but a
    number."""
    if not isinstance(found, int):
        return True
    return output if needed is None else found == needed


def _described(kind: str, shape: Iterable[Any]) -> str:
    lengths = ", ".join(str(n) if isinstance(n, int) else "any" for n in shape)
    return f"{kind.removeprefix('tensor(').removesuffix(')')}[{lengths}]"


def wrong(path: Path, difference: str) -> ModelError:
    """The error of a file that differs from the specification."""
    return ModelError(f"{path} is not of the form of a Moonshine streaming model: {difference}")


def _shown(value: object) -> str:
    return "missing" if value is None else json.dumps(value)[:80]
