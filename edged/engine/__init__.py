"""From frames to events: the session, its turns, and the threads that run it."""
