"""`python -m tciafs` is the command `tciafs`."""

from tciafs.cli import main

main(prog_name="tciafs")
