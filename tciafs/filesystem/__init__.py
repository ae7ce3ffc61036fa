"""The tree as the kernel sees it."""
