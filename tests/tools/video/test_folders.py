"""Access to videos by name: a resolved path, or the same error for all others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.graphs.doubles import clip_in

from act2see.errors import ConfigError, StoreError, VideoError
from act2see.tools.runtime.files import read_file
from act2see.tools.video.download import download
from act2see.tools.video.folders import FencedLibrary, Folders
from act2see.tools.video.library import VideoLibrary
from act2see.tools.video.store import FrameStore


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """`videos` with a clip and a folder, and beside it `outside` with another."""
    folder = tmp_path / "videos"
    (folder / "trip").mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(b"one")
    (folder / "trip" / "day 1: sea.mp4").write_bytes(b"two")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.mp4").write_bytes(b"three")
    return folder


def refused(folders: Folders, name: str) -> str:
    with pytest.raises(VideoError) as e:
        folders.path(name)
    return str(e.value)


def test_names_are_relative_to_a_folder_or_absolute_within_it(videos: Path) -> None:
    folders = Folders([videos])
    assert folders.path("clip.mp4") == str(videos / "clip.mp4")
    assert folders.path("./trip//day 1: sea.mp4") == str(videos / "trip" / "day 1: sea.mp4")
    assert folders.path(str(videos / "clip.mp4")) == str(videos / "clip.mp4")
    assert folders.path("clip.mp4#t=2,8") == f"{videos}/clip.mp4#t=2,8"


def test_paths_outside_the_folders_are_refused_with_one_message(
    videos: Path,
) -> None:
    os.mkfifo(videos / "pipe.mp4")
    (videos / "zero.mp4").symlink_to("/dev/zero")
    (videos / "fd.mp4").symlink_to("/proc/self/fd/0")
    (videos / "out.mp4").symlink_to(videos.parent / "outside" / "secret.mp4")
    (videos / "gone.mp4").symlink_to(videos.parent / "outside" / "none.mp4")
    (videos / "out").symlink_to(videos.parent / "outside")
    (videos.parent / "videos-too").mkdir()
    (videos.parent / "videos-too" / "clip.mp4").write_bytes(b"four")
    (videos.parent / "way in").symlink_to(videos)
    said = {
        refused(Folders([videos]), name)
        for name in (
            "/etc/passwd",
            "/no/such/file",
            f"{videos.parent}/outside/secret.mp4",
            f"{videos.parent}/outside/none.mp4",
            f"{videos.parent}/videos-too/clip.mp4",
            f"{videos.parent}/way in/clip.mp4",
            "../outside/secret.mp4",
            "../outside/none.mp4",
            "trip/../clip.mp4",
            "..\\outside\\secret.mp4",
            "out.mp4",
            "gone.mp4",
            "out/secret.mp4",
            "out/secret.mp4#t=1,2",
            "clip\0.mp4",
            "clip\ud800.mp4",
            "/dev/zero",
            "/proc/self/environ",
            "none.mp4",
            "none.mp4#t=1,2",
            "pipe.mp4",
            "zero.mp4",
            "fd.mp4",
            "trip",
            ".",
            "",
            str(videos),
            "concat:clip.mp4|../outside/secret.mp4",
            "subfile,,start,0,end,0,,:clip.mp4",
            "file:clip.mp4",
            "pipe:0",
            "cache:clip.mp4",
            "data:video/mp4;base64,AAAA",
            "~/clip.mp4",
            "clip.mp4\n",
            "a" * 5000,
        )
    }
    (message,) = said
    assert str(videos) in message
    assert "secret" not in message


@pytest.mark.parametrize(
    "name",
    ["http://localhost/clip.mp4", "HTTPS://a.b/c.mp4", "file:///etc/passwd", "ftp://a.b/c", "rtsp://a.b/c"],
)
def test_urls_are_refused_unless_allowed(videos: Path, name: str) -> None:
    assert "URLs" in refused(Folders([videos]), name)


def test_links_within_and_several_folders(videos: Path) -> None:
    outside = videos.parent / "outside"
    (videos / "again.mp4").symlink_to(videos / "clip.mp4")
    (outside / "clip.mp4").write_bytes(b"other")
    folders = Folders([videos, outside])
    assert folders.path("again.mp4") == str(videos / "clip.mp4")
    assert folders.path("secret.mp4") == str(outside / "secret.mp4")
    assert folders.path("clip.mp4") == str(videos / "clip.mp4")
    # Each listed name opens the file that it was listed for.
    names = folders.videos()
    assert names == ["again.mp4", "clip.mp4", "trip/day 1: sea.mp4", str(outside / "clip.mp4"), "secret.mp4"]
    assert [Path(folders.path(n)).read_bytes() for n in names] == [b"one", b"one", b"two", b"other", b"three"]


def test_the_list_contains_videos_that_may_be_opened_and_is_limited(videos: Path) -> None:
    (videos / "out.mp4").symlink_to(videos.parent / "outside" / "secret.mp4")
    (videos / "notes.txt").write_text("no video")
    (videos / ".hidden").mkdir()
    (videos / ".hidden" / "clip.mp4").write_bytes(b"x")
    assert Folders([videos]).videos() == ["clip.mp4", "trip/day 1: sea.mp4"]
    assert Folders([videos]).videos(max_count=1) == ["clip.mp4"]


def test_names_that_are_not_utf8_are_left_out_with_a_warning(
    videos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in (b"caf\xe9.mp4", b"\xff.txt"):
        (Path(os.fsdecode(os.fsencode(videos) + b"/" + name))).write_bytes(b"x")
    bytes_folder = Path(os.fsdecode(os.fsencode(videos) + b"/\xfe"))
    bytes_folder.mkdir()
    (bytes_folder / "clip.mp4").write_bytes(b"x")
    (videos / "link.mp4").symlink_to(bytes_folder / "clip.mp4")
    folders = Folders([videos])
    assert folders.videos() == folders.videos() == ["clip.mp4", "trip/day 1: sea.mp4"]
    assert folders.misnamed() == ["caf\\udce9.mp4", "\\udcfe/clip.mp4"]
    assert caplog.text.count("caf\\udce9.mp4 is left out") == 1
    assert (
        refused(folders, os.fsdecode(b"caf\xe9.mp4"))
        == refused(folders, "link.mp4")
        == refused(folders, "none.mp4")
    )
    with pytest.raises(ConfigError, match=r"\\udcfe is not UTF-8: rename it"):
        Folders([bytes_folder])
    with pytest.raises(ConfigError, match=r"there is no folder .*\\udcff"):
        Folders([os.fsdecode(b"/\xff")])


def test_pictures_have_the_same_access_rules_as_videos(videos: Path) -> None:
    (videos / "mine.png").write_bytes(b"picture")
    (videos.parent / "outside" / "secret.png").write_bytes(b"secret")
    (videos / "link.png").symlink_to(videos.parent / "outside" / "secret.png")
    os.mkfifo(videos / "pipe.png")
    folders = Folders([videos])
    assert folders.read_picture("mine.png", 7) == folders.read_picture(f"{videos}/mine.png", 7) == b"picture"
    with pytest.raises(StoreError, match="larger than 6 bytes"):
        folders.read_picture("mine.png", 6)
    said = set()
    for name in (
        "none.png",
        "link.png",
        "pipe.png",
        "../outside/secret.png",
        f"{videos.parent}/outside/secret.png",
        "/no/such.png",
        "/dev/zero",
        "/proc/self/environ",
        "trip",
        "",
        "a\0.png",
        "\ud800.png",
        "http://127.0.0.1/a.png",
        "mine.png#t=1,2",
    ):
        with pytest.raises(StoreError) as e:
            folders.read_picture(name, 7)
        said.add(str(e.value))
    assert len(said) == 1


def test_a_file_is_read_only_if_it_is_a_regular_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match=r"regular|directory"):
            read_file(name, 10)


def test_a_folder_may_be_a_link(videos: Path) -> None:
    link = videos.parent / "link"
    link.symlink_to(videos)
    assert Folders([link]).path("clip.mp4") == str(videos / "clip.mp4")
    assert Folders([link]).path(f"{link}/clip.mp4") == str(videos / "clip.mp4")


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder"):
        Folders([tmp_path / "none"])
    with pytest.raises(ConfigError, match="at least one"):
        Folders([])


def test_a_fenced_library_opens_only_its_folders(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    inside, outside = clip_in(tmp_path / "in"), clip_in(tmp_path / "out")
    (tmp_path / "in" / "link.mp4").symlink_to(outside)
    fenced = FencedLibrary(
        VideoLibrary(tmp_path / "cache", FrameStore(tmp_path / "frames"), 192), Folders([tmp_path / "in"])
    )
    assert fenced.probe(f"{inside}#t=0,1").info.seconds == pytest.approx(1.0)
    assert len(fenced.pictures(inside, [0, 1])) == 2
    os.mkfifo(tmp_path / "in" / "pipe.mp4")
    said = set()
    for path in (
        outside,
        f"{tmp_path}/in/../out/clip.mp4",
        f"{tmp_path}/in/link.mp4",
        os.path.relpath(inside),
        "/none.mp4",
        "/dev/zero",
        f"{tmp_path}/in/none.mp4",
        f"{tmp_path}/in/pipe.mp4",
        f"{tmp_path}/in/pipe.mp4#t=1,2",
        str(tmp_path / "in"),
        f"{inside}\0",
        f"{inside}\ud800",
        f"concat:{inside}",
        f"file://{inside}",
        f"http://127.0.0.1/{inside}",
        "",
    ):
        for look in (fenced.probe, lambda p: fenced.pictures(p, [0])):
            with pytest.raises(VideoError, match="only videos in") as e:
                look(path)  # type: ignore[operator]
            said.add(str(e.value))
    assert len(said) == 1


def test_a_part_of_a_link_is_not_parsed_again_as_another_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    inside, outside = clip_in(tmp_path / "in"), clip_in(tmp_path / "out")
    (tmp_path / "in" / "link.mp4").symlink_to(inside)
    folders = Folders([tmp_path / "in"])
    assert folders.path("link.mp4#t=0,1") == f"{inside}#t=0,1"
    # Once the link is resolved, the text of its part is the name of another link, which leads out.
    os.symlink(outside, f"{inside}#t=0,1")
    assert "only videos in" in refused(folders, "link.mp4#t=0,1")
    assert "only videos in" in refused(folders, "clip.mp4#t=0,1")
    fenced = FencedLibrary(VideoLibrary(tmp_path / "cache", FrameStore(tmp_path / "frames"), 192), folders)
    found = folders.find("link.mp4#t=0,1")
    assert found
    window = fenced.window(found)  # a window is the file that was checked
    assert (window.path, window.end) == (inside, 1.0)


@pytest.mark.parametrize("becomes", ["a link", "another file", "the same file again", "a pipe"])
def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path: Path, becomes: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    inside, outside = Path(clip_in(tmp_path / "in")), clip_in(tmp_path / "out")
    library = VideoLibrary(tmp_path / "cache", FrameStore(tmp_path / "frames"), 192)
    fenced = FencedLibrary(library, Folders([tmp_path / "in"]))
    fenced.probe(str(inside))
    reading = fenced.decode(str(inside), [0, 1, 2], (48, 48))
    assert next(reading)[0] == 0
    inside.rename(tmp_path / "in" / "kept.mp4")
    if becomes == "a link":
        inside.symlink_to(outside)
    elif becomes == "another file":
        inside.write_bytes(Path(outside).read_bytes())
    elif becomes == "a pipe":
        os.mkfifo(inside)
    else:
        (tmp_path / "in" / "kept.mp4").rename(inside)
    with pytest.raises(VideoError, match="was changed while it was read: ask again"):
        next(reading)


def test_a_fenced_library_keeps_the_framer(tmp_path: Path) -> None:
    class Whole:
        id = "whole"

        def find(self, pictures: object) -> None:
            return None

    library = VideoLibrary(tmp_path / "cache", FrameStore(tmp_path / "frames"), 192, framer=Whole())  # type: ignore[arg-type]
    assert FencedLibrary(library, Folders([tmp_path])).framer is library.framer


class _Moves(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(302)
        self.send_header(
            "Location", "ftp://127.0.0.1/clip.mp4" if "ftp" in self.path else "file:///etc/passwd"
        )
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(videos: Path) -> Iterator[tuple[str, str]]:
    """The addresses of two servers: one has the videos, one leads elsewhere."""
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), h) for h in (partial(_Files, directory=str(videos)), _Moves)
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tuple(f"http://127.0.0.1:{s.server_port}" for s in servers)  # type: ignore[misc]
    for server in servers:
        server.shutdown()
        server.server_close()


def test_an_allowed_url_is_downloaded_once(videos: Path, served: tuple[str, str], tmp_path: Path) -> None:
    folders = Folders([videos], downloads=tmp_path / "downloads")
    path = folders.path(f"{served[0]}/clip.mp4#t=1,2")
    assert path.endswith("#t=1,2")
    assert Path(path.removesuffix("#t=1,2")).read_bytes() == b"one"
    (videos / "clip.mp4").unlink()
    assert folders.path(f"{served[0]}/clip.mp4") == path.removesuffix("#t=1,2")
    assert folders.resolve(path)
    assert "downloaded" in refused(folders, f"{served[0]}/none.mp4")
    assert "downloaded" in refused(folders, "file:///etc/passwd")
    assert "downloaded" in refused(folders, "http:///nothing")
    for part in ("#/../../outside/secret.mp4", "#", "#t=1,2/../../../outside/secret.mp4", "#x#t=1,2"):
        assert "names no part of a video" in refused(folders, f"{served[0]}/clip.mp4{part}")


def test_a_download_stays_on_http_and_leaves_no_incomplete_file(
    videos: Path, served: tuple[str, str], tmp_path: Path
) -> None:
    for where in ("ftp", "file"):
        with pytest.raises(VideoError, match="cannot be downloaded"):
            download(f"{served[1]}/{where}", tmp_path / "downloads")
    with pytest.raises(VideoError, match="larger than 2 bytes"):
        download(f"{served[0]}/clip.mp4", tmp_path / "downloads", largest=2)
    assert list((tmp_path / "downloads").iterdir()) == []


class _Drips(BaseHTTPRequestHandler):
    """Sends a byte now and then, for ever: of the head, or of the body."""

    def do_GET(self) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\n" + (b"" if self.path == "/head" else b"content-length: 9\r\n\r\n")
        )
        if self.path == "/short":
            self.wfile.write(b"1234")
            return
        with suppress(OSError):
            while not self.server.stopped.wait(0.02):  # type: ignore[attr-defined]
                self.wfile.write(b"x: y\r\n" if self.path == "/head" else b"")

    def log_message(self, *_: object) -> None:
        pass


def test_a_download_ends_in_time_and_is_whole(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Drips)
    server.stopped = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for where in ("head", "body"):
            with pytest.raises(VideoError, match=r"took longer than 0\.3 s"):
                download(f"{url}/{where}", tmp_path / "downloads", longest=0.3)
        with pytest.raises(VideoError, match="ended after 4 of 9 bytes"):
            download(f"{url}/short", tmp_path / "downloads")
    finally:
        server.stopped.set()  # type: ignore[attr-defined]
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "downloads").iterdir()) == []
