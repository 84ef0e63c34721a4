"""Flags of every experiment, defined without JAX or any other slow import.

A command parses and checks its flags before it imports the code that does the work, so that a wrong
flag is reported at once.
"""
