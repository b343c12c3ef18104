"""Where OpsML's table is, as text."""

from __future__ import annotations

import os

import pytest

from opsml_eventbus.endpoints import open_source
from opsml_eventbus.endpoints.opsml import from_tracking_uri, open_table, parse_url, without_password
from opsml_eventbus.endpoints.opsml.url import sqlite_url
from opsml_eventbus.errors import UnknownEnd


@pytest.mark.parametrize(
    ("text", "path", "name"),
    [
        ("sqlite:///lab.db", "lab.db", "sqlite:///lab.db"),
        ("sqlite:///data/lab.db", "data/lab.db", "sqlite:///data/lab.db"),
        ("sqlite:////srv/lab.db", "/srv/lab.db", "sqlite:////srv/lab.db"),
        ("sqlite://///srv/lab.db", "/srv/lab.db", "sqlite:////srv/lab.db"),
        ("sqlite:///my%20lab.db", "my lab.db", "sqlite:///my%20lab.db"),
        ("sqlite:///lab.db?mode=rwc", "lab.db", "sqlite:///lab.db"),
        ("SQLite:///lab.db", "lab.db", "sqlite:///lab.db"),
    ],
)
def test_a_sqlite_source_names_a_file(text: str, path: str, name: str) -> None:
    url = parse_url(text)
    assert (url.dialect, url.path, url.name) == ("sqlite", path, name)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///srv/lab.db", "/srv/lab.db"),  # $PWD/opsml.db, OpsML's default: three slashes are absolute here
        ("sqlite:////srv/lab.db", "/srv/lab.db"),
        ("sqlite://lab.db", "lab.db"),
        ("sqlite://./lab.db", "./lab.db"),
        ("sqlite:lab.db", "lab.db"),
        ("/srv/lab.db", "/srv/lab.db"),
        ("lab.db", "lab.db"),
        ("sqlite://lab.db?mode=rwc", "lab.db"),
    ],
)
def test_a_tracking_uri_is_read_as_opsml_reads_it(text: str, path: str) -> None:
    url = from_tracking_uri(text)
    assert url.path == path
    for source in (url.text, url.name):
        assert parse_url(source).path == path, "it is a SOURCE, where three slashes are relative"


@pytest.mark.parametrize(
    "text", ["sqlite:lab.db", "sqlite://lab.db", "sqlite:///", "sqlite:///data/", "sqlite:///a%00b"]
)
def test_a_sqlite_url_without_a_file_is_refused(text: str) -> None:
    with pytest.raises(UnknownEnd) as caught:
        parse_url(text)
    assert "sqlite:///relative.db" in caught.value.known


@pytest.mark.parametrize(
    ("text", "reason"),
    [("http://opsml:3000", "address of a server"), ("sqlite::memory:", "in memory"), ("sqlite://", "no file")],
)
def test_a_tracking_uri_that_is_no_database_of_ours_says_why(text: str, reason: str) -> None:
    with pytest.raises(UnknownEnd, match=reason):
        from_tracking_uri(text)


@pytest.mark.parametrize(
    "path", ["/srv/lab.db", "a b%20c?#.db", "Prüfung/☃.db", os.fsdecode(b"/srv/\xff\xfe.db"), "//x"]
)
def test_any_path_can_be_written_as_a_url_and_read_back(path: str) -> None:
    url = sqlite_url(path)
    assert url.isascii(), "a URL stands in lines, which are UTF-8 whatever the file is called"
    assert parse_url(url).path == path.replace("//", "/")


@pytest.mark.parametrize(
    "text", ["postgresql://me:se@cr/et@db:5432/opsml?password=hush", "mysql://me:se@cr/et@db/opsml"]
)
def test_a_database_that_comes_later_says_so_and_keeps_its_password(text: str) -> None:
    for opened in (open_table, open_source):
        with pytest.raises(UnknownEnd, match="not read yet") as caught:
            opened(text)
        said = f"{caught.value} {caught.value.end} {caught.value.args} {parse_url(text)!r} {parse_url(text).name}"
        assert not any(secret in said for secret in ("se@cr", "et@", "hush"))
    assert from_tracking_uri(text).text == text, "a driver gets all of it"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@db:5432/opsml", "postgresql://me@db:5432/opsml"),
        ("postgresql://db/opsml", "postgresql://db/opsml"),
        ("http://me:secret@host/x?token=secret", "http://me@host/x"),
        ("postgresql://:secret@db/opsml", "postgresql://@db/opsml"),
    ],
)
def test_no_password_is_shown(text: str, shown: str) -> None:
    assert without_password(text) == shown
