import json
from dataclasses import replace

import polars as pl
from synthetic_report import empty_report, make_report

from smd_analyze.records.report import TABLES
from smd_analyze.views.json import report_json, rows


def test_the_document_is_strict_and_whole():
    report = make_report(5)
    broken = report.layers.with_columns(pl.lit(float("nan")).alias("ratio"), pl.lit(float("inf")).alias("level"))
    document = report_json(replace(report, layers=broken))
    again = json.loads(json.dumps(document, allow_nan=False))
    assert set(again) == {"verdict", "provenance", *TABLES}
    assert again["layers"][0]["ratio"] is None
    assert again["layers"][0]["level"] is None
    assert again["statistics"] == report.statistics.to_dicts()
    assert report_json(empty_report())["layers"] == []


def test_lists_inside_rows_are_strict_too():
    assert rows(pl.DataFrame({"x": [[1.0, float("nan")]]})) == [{"x": [1.0, None]}]
