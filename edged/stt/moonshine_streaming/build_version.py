"""What the graph compiler writes, and the version of what it writes.

Apart from `edged.export.moonshine_streaming`, because that imports onnx, which no run needs.
"""

BUILD_VERSION = 1  # raise it whenever a built graph would differ: stale graphs are then rebuilt
ENCODER, DECODER = "encoder.onnx", "decoder.onnx"
GRAPH_FILES = (ENCODER, DECODER)
