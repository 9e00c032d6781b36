"""Settings: what is allowed, where values come from, changes while edged runs, rollback."""
