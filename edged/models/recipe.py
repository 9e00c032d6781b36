"""What the builder makes, and its version: known to those who load graphs but never build any.

Apart from moonshine.py because that one imports onnx: 24 MB resident, a quarter of a second.
"""

BUILDER_VERSION = 1  # raise it when a built graph would differ: stale ones are then built again
GRAPHS = ("conv1", "conv23", "encoder", "encoder_full", "cross", "decoder")
GRAPH_FILES = tuple(f"{name}.onnx" for name in GRAPHS)
