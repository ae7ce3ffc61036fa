"""The bytes: fetched once, verified, and kept on disk."""
