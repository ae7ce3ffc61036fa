"""Ask an archive by tcia-utils: `URL COLLECTION MODALITY CART SERIES SOP FOLDER`; prints what it says.

Every series goes to FOLDER/all, those of the cart to FOLDER/cart, the image to FOLDER/image.
"""

import json
import logging
import sys
import types

# Its module for IDC, which is not asked, needs a catalogue of hundreds of megabytes.
sys.modules["idc_index"] = types.SimpleNamespace(IDCClient=None)  # type: ignore[assignment]

from tcia_utils import nbia  # noqa: E402

url, collection, modality, cart, series, sop, folder = sys.argv[1:]
logging.getLogger().setLevel(logging.WARNING)

address_of = nbia.setApiUrl
public = "https://nbia.cancerimagingarchive.net/nbia-api/services"
nbia.setApiUrl = lambda endpoint, api_url="": address_of(endpoint, api_url).replace(public, url)

told = {
    "getCollections": nbia.getCollections(),
    "getPatient": nbia.getPatient(collection=collection),
    "getStudy": nbia.getStudy(collection=collection),
    "getSeries": nbia.getSeries(),
    "getSimpleSearch": nbia.getSimpleSearch(collections=[collection], modalities=[modality]),
    "getSharedCart": nbia.getSharedCart(name=cart),
}
nbia.downloadSeries(told["getSeries"], path=f"{folder}/all")
nbia.downloadSeries(told["getSharedCart"], path=f"{folder}/cart", hash="y")
nbia.downloadImage(series, sop, path=f"{folder}/image")
print(json.dumps(told))
