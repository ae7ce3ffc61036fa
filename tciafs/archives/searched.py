"""NBIA's rows that a search for any criteria takes (nbia-api 2.3): its values, and what its keys lead to."""

from __future__ import annotations

import msgspec

from tciafs.archives.values import Number, Text


class ManufacturerRow(msgspec.Struct, rename={"manufacturer": "Manufacturer"}):
    """A row of getManufacturerValues; `{}` for series that have none."""

    manufacturer: Text = None


class SpeciesRow(msgspec.Struct, rename={"code": "speciesCode", "description": "speciesDescription"}):
    """A row of getSpeciesTax."""

    code: Text = None
    description: Text = None


class CountedRow(msgspec.Struct, rename={"collection": "Collection", "count": "Count"}):
    """A row of getCollectionValuesAndCounts: how many patients a collection has."""

    collection: Text = None
    count: Number = None


class DoiRow(msgspec.Struct, rename={"series_instance_uid": "seriesInstanceUID"}):
    """A row of getCollectionOrSeriesForDOI."""

    series_instance_uid: Text = None


class CartSeries(
    msgspec.Struct,
    rename={
        "series_pk_id": "seriesPkId",
        "series_uid": "seriesUID",
        "body_part_examined": "bodyPartExamined",
        "number_images": "numberImages",
        "total_size": "totalSizeForAllImagesInSeries",
    },
):
    """A series of getCartData, with its database key and the sum of its images' sizes in bytes."""

    series_pk_id: int
    series_uid: str
    modality: Text = None
    description: Text = None
    body_part_examined: Text = None
    number_images: Number = None
    total_size: Number = None


class CartStudy(msgspec.Struct, rename={"study_instance_uid": "studyId", "series_list": "seriesList"}):
    """A study of getCartData."""

    study_instance_uid: str
    series_list: list[CartSeries] = []
