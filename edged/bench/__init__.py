"""`edged bench`: what this machine does with real speech, in numbers."""
