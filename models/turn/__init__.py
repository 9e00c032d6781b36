"""Fits and scores the turn model (models/inactivity.json). Not part of the installed edged."""
