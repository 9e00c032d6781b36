"""`edged doctor`: checks that find problems and name a remedy for each."""
