"""`edged bench`: measures speed, memory, delay and word errors on recorded speech."""
