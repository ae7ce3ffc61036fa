"""Public clients of NBIA, each for the interpreter of an environment of its own."""
