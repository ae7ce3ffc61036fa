"""Ask an archive by nbiatoolkit: `URL COLLECTION FOLDER`; prints what it says.

Every series of the collection goes to FOLDER.
"""

import json
import sys
from types import SimpleNamespace

from nbiatoolkit import NBIAClient
from nbiatoolkit.auth import OAuth2

url, collection, folder = sys.argv[1:]
client = NBIAClient(log_level="ERROR")
client.base_url = SimpleNamespace(value=f"{url}/")
client._oauth2_client = OAuth2(base_url=f"{url}/")

told = {"getCollections": client.getCollections(), "getSeries": client.getSeries(Collection=collection)}
uids = [row["SeriesInstanceUID"] for row in told["getSeries"]]
told["downloadSeries"] = client.downloadSeries(uids, folder, "%SeriesInstanceUID/%SOPInstanceUID.dcm")
print(json.dumps(told))
