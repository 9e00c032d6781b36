"""What the graph compiler writes, and the version of what it writes.

Apart from `edged.export.moonshine`, because that imports onnx: 24 MB resident and a quarter of a
second.
"""

BUILD_VERSION = 18  # raise it whenever a built graph would differ: stale graphs are then rebuilt
GRAPHS = ("conv1", "conv23", "encoder", "encoder_full", "cross", "decoder")
EMBEDDING = "embedding.bin"
GRAPH_FILES = (*(f"{name}.onnx" for name in GRAPHS), EMBEDDING)

# How far the weights of the streaming encoder go from upstream's (0) to the adapted ones (1).
ADAPTED_SHARE = 0.5
