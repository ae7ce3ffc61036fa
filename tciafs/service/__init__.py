"""One mount's life, from the mount point's check to the unmount."""
