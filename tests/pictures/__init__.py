"""The pictures of docs/pictures: the drive as it looks on a desktop."""
