"""The page of formats is made from the registries and is what docs holds."""

from pathlib import Path

from smd_analyze.loading import catalogue
from smd_analyze.loading.formats.registry import FOLDER_FORMATS, FORMATS
from smd_analyze.loading.frameworks.registry import FRAMEWORKS

PAGE = Path(__file__).parents[3] / "docs" / "formats.md"


def test_docs_hold_the_page_of_the_registries():
    assert PAGE.read_text() == catalogue.page(), "python -m smd_analyze.loading.catalogue > docs/formats.md"


def test_every_format_and_trainer_says_what_it_reads():
    page = catalogue.page()
    for entry in (*FORMATS, *FOLDER_FORMATS, *FRAMEWORKS):
        rows = [line for line in page.splitlines() if line.startswith(f"| {entry.name} |")]
        assert rows, entry.name
        assert all(len(row.split("|")[2].split()) > 7 for row in rows), f"{entry.name} says too little: {rows}"
