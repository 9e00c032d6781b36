"""Settings: what is allowed, where it comes from, and the files that worked."""
