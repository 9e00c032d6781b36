"""What the graph compiler writes, and the version of what it writes.

Apart from `edged.export.whisper`, because that imports onnx.
"""

# Raise it whenever a built graph would differ, also by other sample speech (`padding_constants`):
# stale graphs are then rebuilt.
BUILD_VERSION = 3
GRAPHS = ("features", "encoder", "cross", "decoder")
EMBEDDING = "embedding.bin"
PADDING = "padding.npy"
CROSS_PADDING = "cross_padding.bin"
GRAPH_FILES = (*(f"{name}.onnx" for name in GRAPHS), EMBEDDING, PADDING, CROSS_PADDING)
