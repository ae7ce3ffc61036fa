"""The embedded archive: real DICOM served as NBIA serves it, with faults that can be switched on."""
