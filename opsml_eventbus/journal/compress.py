"""Compressing finished files, one step at a time, so that at each there is a whole copy under a name that counts.

temporary file → sync → decompress and compare → rename → sync the folder → remove the original → sync the folder.

While both are there the plain one is the one that is read. A run that was interrupted is simply run again.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from ..errors import JournalRefused
from .disk import is_there, open_file, sync, sync_folder
from .segments import COMPRESSIONS, Segment, load_zstd, open_regular, open_stream, parse_segment

TEMPORARY_SUFFIX = ".tmp"
_PIECE = 1 << 20
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 3


def check_compression(path: Path, compression: str | None) -> None:
    """Raises JournalRefused: an unknown name, or a missing extra."""
    if compression is not None and compression not in COMPRESSIONS:
        raise JournalRefused(str(path), f"compression {compression!r} is none of {', '.join(COMPRESSIONS)}")
    if compression == "zstd":
        load_zstd(str(path))


def compress_segment(segment: Segment, compression: str) -> Path:
    """Replace a finished plain file by its compressed form; the form's path.

    Raises OSError, or ValueError (the copy, or one that is there already, is not equal), and then all is as it was.
    """
    path = segment.path
    target = path.with_name(path.name + COMPRESSIONS[compression])
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    temporary.unlink(missing_ok=True)
    descriptor = open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with os.fdopen(descriptor, "wb") as raw, open_regular(path) as source:
            digest = sha256()
            with _packer(raw, compression) as packer:
                while data := source.read(_PIECE):
                    digest.update(data)
                    packer.write(data)
            raw.flush()
            sync(raw.fileno())
        _compare(temporary, target.suffix, digest.digest())
        if is_there(target):
            # A crash leaves equal ones. This may be the only good copy of a file that was altered since.
            _compare(target, target.suffix, digest.digest())
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
    path.unlink()
    sync_folder(path.parent)
    return target


def remove_segment(segment: Segment) -> None:
    """Remove a finished file in whatever forms it is there."""
    plain = segment.path.with_suffix("") if segment.packed else segment.path
    for suffix in ("", *COMPRESSIONS.values()):
        plain.with_name(plain.name + suffix).unlink(missing_ok=True)
    sync_folder(plain.parent)


def remove_leftovers(live: Path) -> None:
    """Temporary files of compressions that were interrupted. Needs the lock."""
    for name in os.listdir(live.parent):  # noqa: PTH208 - names are all that is wanted
        path = live.with_name(name)
        segment = parse_segment(path.with_suffix("")) if path.suffix == TEMPORARY_SUFFIX else None
        if segment is not None and segment[0] == live and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)


@contextmanager
def _packer(raw: BinaryIO, compression: str) -> Iterator[BinaryIO]:
    if compression == "gzip":
        # No name and no time in the header: equal segments give equal files.
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=raw, mtime=0) as packer:
            yield cast("BinaryIO", packer)
    else:
        zstd = load_zstd(raw.name)
        options = {zstd.CompressionParameter.compression_level: _ZSTD_LEVEL, zstd.CompressionParameter.checksum_flag: 1}
        with zstd.ZstdFile(raw, "wb", options=options) as packer:
            yield cast("BinaryIO", packer)


def _compare(path: Path, suffix: str, expected: bytes) -> None:
    """suffix: the final name's, which decides how it is read. Raises ValueError: it unpacks to something else."""
    digest = sha256()
    with closing(open_stream(path, suffix)) as stream:
        while data := stream.read(_PIECE):
            digest.update(data)
    if digest.digest() != expected:
        raise ValueError(f"{path.name} does not unpack to what stands in the plain file")
