"""What a reader in order will open next, fetched before it is opened."""
