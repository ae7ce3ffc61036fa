"""The network: what an archive is asked, and how its answers become records."""
