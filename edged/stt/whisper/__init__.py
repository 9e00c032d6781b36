"""Whisper (tiny, base, small; MIT; 99 languages), streamed without training."""
