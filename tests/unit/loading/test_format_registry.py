"""Which format a file has: nobody, one, two, or one whose library is missing."""

from pathlib import Path

import pytest

from smd_analyze.errors import AmbiguousFormat, MissingLibrary, UnknownFormat
from smd_analyze.loading.files.sources import Source, open_source
from smd_analyze.loading.formats import registry
from smd_analyze.loading.formats.base import Document, Format


def opened(path: Path) -> Document:
    with open_source(str(path)) as source:
        return registry.open_document(source)


def stranger(name: str, requires: tuple[str, ...] = ()) -> Format:
    def open_it(source: Source, previous: Document | None) -> Document:
        return Document(source.path, name, {}, (source.file,))

    return Format(name, lambda source: source.head.startswith(b"STRANGE"), open_it, requires)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.strange").write_bytes(b"STRANGE\0\1\2")
    return tmp_path / "a.strange"


def test_nobody(path: Path) -> None:
    with pytest.raises(UnknownFormat, match=r"a\.strange"):
        opened(path)


def test_a_plugin_is_asked_when_no_format_of_ours_matches(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "plugins", lambda: (stranger("strange"),))
    assert opened(path).format == "strange"


def test_two_are_an_error_in_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "plugins", lambda: (stranger("strange"), stranger("stranger")))
    with pytest.raises(AmbiguousFormat, match="strange and stranger"):
        opened(path)


def test_a_missing_library_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "plugins", lambda: (stranger("strange", ("no_such_library",)),))
    with pytest.raises(MissingLibrary, match="pip install no_such_library"):
        opened(path)
