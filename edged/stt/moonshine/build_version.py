"""What the builder makes, and its version: known to those who load graphs but never build any.

Apart from moonshine.py because that one imports onnx: 24 MB resident, a quarter of a second.
"""

BUILDER_VERSION = 18  # raise it when a built graph would differ: stale ones are then built again
GRAPHS = ("conv1", "conv23", "encoder", "encoder_full", "cross", "decoder")
EMBEDDING = "embedding.bin"
GRAPH_FILES = (*(f"{name}.onnx" for name in GRAPHS), EMBEDDING)

# Half way between upstream's weights and the adapted ones both are surpassed: 14.2 % of words wrong
# at 0.8 s of delay, 14.5 % with the adapted ones alone, which also lose with a whole clip in view
# (14.0 %, upstream 12.7 %).
ADAPTED_SHARE = 0.5
