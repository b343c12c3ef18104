"""Names on a machine: a live socket is never stolen, a dead one is replaced, an unsafe folder is refused."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from opsml_eventbus.endpoints.tap.folder import (
    MAX_PATH_BYTES,
    Claim,
    Locked,
    claim,
    claim_soon,
    ensure_folder,
    is_live,
    live_sockets,
    socket_path,
    tap_folder,
)
from opsml_eventbus.errors import Refused, Unreachable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "taps"
    ensure_folder(path)
    return path


def dead_socket(path: Path) -> None:
    """What a process that was killed leaves behind."""
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()


# ── the folder ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_folder_is_in_the_runtime_directory_or_carries_the_uid():
    assert tap_folder("/run/user/7", "/tmp", 7) == Path("/run/user/7/eventbus")
    assert tap_folder(None, "/tmp", 7) == tap_folder("", "/tmp", 7) == Path("/tmp/eventbus-7")
    assert tap_folder("not/absolute", "/tmp", 7) == Path("/tmp/eventbus-7")


def test_a_folder_is_made_private_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        ensure_folder(tmp_path / "taps")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "taps").stat().st_mode) == 0o700
    ensure_folder(tmp_path / "taps")


def test_a_planted_symlink_is_refused(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "taps").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="symlink"):
        ensure_folder(tmp_path / "taps")
    with pytest.raises(Refused, match="symlink"):
        live_sockets(tmp_path / "taps")


def test_a_folder_open_to_others_is_refused(folder: Path):
    folder.chmod(0o755)
    with pytest.raises(Refused, match="0755, must be 0700"):
        ensure_folder(folder)


def test_a_folder_of_another_user_is_refused(folder: Path):
    if os.geteuid():
        pytest.skip("needs root, to give a folder away")
    os.chown(folder, 12345, 12345)
    with pytest.raises(Refused, match="uid 12345"):
        ensure_folder(folder)
    with pytest.raises(Refused, match="uid 12345"):
        live_sockets(folder)
    with pytest.raises(Refused, match="uid 12345"):
        claim(folder / "a.sock")


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path):
    (tmp_path / "taps").touch()
    with pytest.raises(Refused, match="not a folder"):
        ensure_folder(tmp_path / "taps")


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path):
    assert live_sockets(tmp_path / "taps") == []
    with pytest.raises(Unreachable):
        claim(tmp_path / "taps" / "a.sock")


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "a b", "é", "a\n"])
def test_a_name_is_letters_digits_and_two_signs(folder: Path, name: str):
    with pytest.raises(Refused, match="letters"):
        socket_path(folder, name)


# ── the claim ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_claimed_socket_listens_and_is_private(folder: Path):
    mine = claim(socket_path(folder, "a"))
    assert is_live(mine.path)
    assert stat.S_IMODE(mine.path.stat().st_mode) == 0o600
    mine.release()
    mine.release()
    assert os.listdir(folder) == []


def test_a_live_socket_is_never_stolen(folder: Path):
    first = claim(folder / "a.sock")
    with pytest.raises(Refused, match="already there"):
        claim(folder / "a.sock", alone=True)
    second = claim(folder / "a.sock")
    assert second.path.name == f"a.{os.getpid()}.sock"
    assert [(s.name, s.pid) for s in live_sockets(folder)] == [("a", os.getpid()), ("a", None)]
    with pytest.raises(Refused, match="this process"):
        claim(folder / "a.sock")
    first.release()
    assert [s.pid for s in live_sockets(folder, "a")] == [os.getpid()]
    assert live_sockets(folder, "b") == []
    second.release()


def test_a_dead_socket_is_replaced(folder: Path):
    dead_socket(folder / "a.sock")
    dead_socket(folder / "b.sock")
    assert live_sockets(folder) == []
    mine = claim(folder / "a.sock", alone=True)
    assert mine.path == folder / "a.sock"
    assert [s.path for s in live_sockets(folder)] == [mine.path]
    mine.release()
    assert os.listdir(folder) == ["b.sock"]


def test_a_bus_that_was_killed_leaves_nothing_that_blocks_the_next(folder: Path):
    script = (
        "import os, signal, sys; from pathlib import Path; from opsml_eventbus.endpoints.tap.folder import claim\n"
        "mine = claim(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder / "a.sock")], check=False).returncode == -9
    assert os.listdir(folder) == ["a.sock"]
    claim(folder / "a.sock", alone=True).release()


def test_the_dead_of_the_same_name_are_swept_away(folder: Path):
    live = claim(folder / "a.1.sock")
    for name in ("a.2.sock", "a.3.sock", "b.4.sock", "a.x.sock", "b.sock"):
        dead_socket(folder / name)
    (folder / "a.5.sock").touch()
    mine = claim(folder / "a.sock")
    assert sorted(os.listdir(folder)) == ["a.1.sock", "a.5.sock", "a.sock", "a.x.sock", "b.4.sock", "b.sock"]
    live.release()
    mine.release()


def test_a_socket_we_may_not_speak_to_is_none_of_ours(folder: Path, monkeypatch: pytest.MonkeyPatch):
    with claim(folder / "a.sock").listener, claim(folder / "b.sock").listener:
        original = is_live

        def forbidden(path: Path) -> bool:
            if path.name == "a.sock":
                raise Refused(str(path), "permission denied")
            return original(path)

        monkeypatch.setattr("opsml_eventbus.endpoints.tap.folder.is_live", forbidden)
        assert [standing.name for standing in live_sockets(folder)] == ["b"]
        with pytest.raises(Refused, match="permission"):
            claim(folder / "a.sock")


def test_only_ones_own_socket_is_removed(folder: Path):
    mine = claim(folder / "a.sock")
    (folder / "a.sock").unlink()
    other = claim(folder / "a.sock", alone=True)
    mine.release()
    assert is_live(other.path)
    other.release()


@pytest.mark.parametrize("plant", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_socket_is_left_alone(folder: Path, plant):
    plant(folder / "a.sock")
    with pytest.raises(Refused, match="stands there"):
        claim(folder / "a.sock")
    assert os.listdir(folder) == ["a.sock"]
    assert live_sockets(folder) == []


def test_a_path_too_long_for_a_socket_is_refused_in_clear_words(folder: Path):
    path = folder / ("x" * (MAX_PATH_BYTES + 1 - len(str(folder)) - 6) + ".sock")
    assert len(str(path)) == MAX_PATH_BYTES + 1
    with pytest.raises(Refused, match=f"{MAX_PATH_BYTES + 1} bytes; the path of a socket may have {MAX_PATH_BYTES}"):
        claim(path)
    with pytest.raises(Refused, match="bytes"):
        is_live(path)
    claim(path.with_name(path.name[1:])).release()


def test_a_folder_where_others_may_swap_files_is_refused(folder: Path):
    folder.chmod(0o777)
    with pytest.raises(Refused, match="others may replace"):
        claim(folder / "a.sock")
    folder.chmod(0o1777)
    claim(folder / "a.sock").release()


def compete(path: Path) -> list[Claim]:
    """Eight claim one path at the same moment; those who got it."""
    won: list[Claim] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        with suppress(Refused):
            won.append(asyncio.run(claim_soon(path, alone=True)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def test_of_many_claimants_of_a_dead_socket_one_gets_the_name(folder: Path):
    for _ in range(20):
        dead_socket(folder / "a.sock")
        [winner] = compete(folder / "a.sock")
        assert is_live(winner.path)
        winner.release()


@contextmanager
def held_lock(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def test_a_lock_held_by_another_is_an_error_not_a_wait_for_ever(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("opsml_eventbus.endpoints.tap.folder.LOCK_SECONDS", 0.1)
    with held_lock(folder):
        with pytest.raises(Locked, match="lock"):
            claim(folder / "a.sock")
        with pytest.raises(Locked, match="lock"):
            asyncio.run(claim_soon(folder / "a.sock"))
    assert os.listdir(folder) == []


def test_a_socket_that_could_not_be_removed_is_replaced_by_the_next(folder: Path):
    mine = claim(folder / "a.sock")
    with held_lock(folder):
        mine.release()
    assert os.listdir(folder) == ["a.sock"]
    claim(folder / "a.sock", alone=True).release()
    assert os.listdir(folder) == []


def test_a_symlink_of_another_user_s_is_no_way_in(folder: Path):
    if os.geteuid():
        pytest.skip("needs root, to give a symlink away")
    (folder / "way").symlink_to(folder)
    claim(folder / "way" / "a.sock").release()
    os.chown(folder / "way", 12345, 12345, follow_symlinks=False)
    with pytest.raises(Refused, match="uid 12345"):
        claim(folder / "way" / "a.sock")
