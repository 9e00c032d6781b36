"""Voice activity and turns: who speaks, when they have finished, and how sure that is.

`README.md` in this folder tells how the parts work together and why they are as they are.
"""
