"""The models that edged can use: catalogue, download, verification, building, loading."""
