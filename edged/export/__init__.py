"""Builds the ONNX graphs from published weights. Imports onnx; never imported at run time."""
