"""What exists: listings that were asked for once, kept on disk and renewed behind."""
