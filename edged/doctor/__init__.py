"""edged doctor: what works, what does not, and one remedy for each."""
