"""Moonshine tiny: features, encoder, decoder graphs and vocabulary."""
