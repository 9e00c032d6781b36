"""What the graph compiler writes, and the version of what it writes.

Apart from `edged.export.whisper`, because that imports onnx.
"""

BUILD_VERSION = 2  # raise it whenever a built graph would differ: stale graphs are then rebuilt
GRAPHS = ("features", "encoder", "cross", "decoder")
EMBEDDING = "embedding.bin"
PADDING = "padding.npy"
CROSS_PADDING = "cross_padding.bin"
GRAPH_FILES = (*(f"{name}.onnx" for name in GRAPHS), EMBEDDING, PADDING, CROSS_PADDING)
