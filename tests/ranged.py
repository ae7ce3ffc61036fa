"""An archive that gives images in ranges, as tests use it: an NBIA server that honours Range."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from tciafs.archives.nbia import NBIA
from tciafs.model import Instance


class Ranged(NBIA):
    """NBIA's API, with ranges (the embedded archive's switch `ranges`)."""

    has_ranges = True

    def open_instance(
        self, instance: Instance, span: range | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Stream the stored file, or a part of it."""
        params = {
            "SeriesInstanceUID": instance.series_instance_uid,
            "SOPInstanceUID": instance.sop_instance_uid,
        }
        return self.http.stream("v4/getSingleImage", params, 10.0, span, instance.size or 0)


if __name__ == "__main__":  # `tciafs`, of such an archive
    from tciafs.cli import main
    from tciafs.service import mount

    vars(mount)["NBIA"] = Ranged
    main(prog_name="tciafs")
