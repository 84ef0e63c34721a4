"""What can be typed: the flags of every experiment, which need neither JAX nor anything else slow.

A command reads and checks its flags before it imports what does the work, so that a wrong one is
answered at once.
"""
