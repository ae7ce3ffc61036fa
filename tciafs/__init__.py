"""The Cancer Imaging Archive, mounted as a folder."""

__version__ = "0.1.0"
