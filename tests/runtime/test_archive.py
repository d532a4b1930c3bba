"""Archives: what is in them comes into the folder, whatever they call it, or nothing does."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Callable, Set

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_tvmrpc.errors import LibraryError
from pytest_tvmrpc.runtime import archive
from pytest_tvmrpc.runtime.archive import unpack


def member(name: str, content: bytes = b"content", **fields: Any) -> Any:
    """A member and its content."""
    found = tarfile.TarInfo(name)
    found.size = len(content)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, content


def packed(*members: Any, form: int = tarfile.PAX_FORMAT) -> bytes:
    """The bytes of an archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as made:
        for header, content in members:
            made.addfile(header, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture(name="unpacked")
def _unpacked(tmp_path: Path) -> Callable[[bytes], Any]:
    """``unpacked(image)``: what `unpack` makes of an archive, relative to its folder."""
    folder = tmp_path / "around" / "folder"
    folder.mkdir(parents=True)

    def act(image: bytes) -> Any:
        (tmp_path / "a.tar").write_bytes(image)
        return [
            str(Path(path).relative_to(folder))
            for path in unpack(str(tmp_path / "a.tar"), str(folder))
        ]

    return act


def everything(folder: Path) -> Set[str]:
    """All files and folders of the test but the archive."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"a.tar"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_files(
    unpacked: Any, tmp_path: Path, form: int, compress: Callable[[bytes], bytes]
) -> None:
    """In their order, with folders made for them, plain and by gzip."""
    large, name = os.urandom(3 << 20), "d" * 60 + "/" + "ä" * 40 + ".o"
    image = packed(
        member("lib0.o"),
        member("./sub/lib1.o", large),
        member("sub", b"", type=tarfile.DIRTYPE),
        member(name, b""),
        member("-o", b"an option"),
        form=form,
    )
    assert unpacked(compress(image)) == ["lib0.o", "sub/lib1.o", name, "-o"]
    folder = tmp_path / "around" / "folder"
    assert (folder / "sub" / "lib1.o").read_bytes() == large
    assert (folder / name).read_bytes() == b""
    assert (folder / "-o").read_bytes() == b"an option"


def test_a_name_that_comes_twice(unpacked: Any, tmp_path: Path) -> None:
    """Is one file, with the last content."""
    assert unpacked(packed(member("a.o", b"old"), member("a.o", b"new"))) == ["a.o"]
    assert (tmp_path / "around" / "folder" / "a.o").read_bytes() == b"new"


@pytest.mark.parametrize(
    "name", ["../x", "sub/../../x", "/x", "//x", "..", ".", "/", "/../x", "sub/../x"]
)
def test_names_that_lead_outside(unpacked: Any, tmp_path: Path, name: str) -> None:
    """Are refused, and nothing is made outside."""
    with pytest.raises(LibraryError, match=r"a\.tar has a member '.*' that leads outside"):
        unpacked(packed(member(name)))
    assert everything(tmp_path) == {"around", "around/folder"}


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symlink", "link", "character device", "block device", "fifo"],
)
@pytest.mark.parametrize("target", ["lib0.o", "../../x", "/etc/passwd"])
def test_what_is_no_plain_file(unpacked: Any, tmp_path: Path, kind: bytes, target: str) -> None:
    """Is refused, wherever it leads."""
    link = member("link", b"", type=kind, linkname=target)
    with pytest.raises(LibraryError, match=r"'link' that is no plain file"):
        unpacked(packed(link, member("link/x")))
    assert everything(tmp_path) == {"around", "around/folder"}


def test_a_sparse_file(unpacked: Any) -> None:
    """Has more bytes than the archive has, and is refused as well."""
    image = bytearray(packed(member("holes"), form=tarfile.GNU_FORMAT))
    image[156:157] = tarfile.GNUTYPE_SPARSE
    image[386:398] = image[398:410] = b"00000000000\0"
    image[483:495] = b"77777777777\0"
    image[148:156] = b" " * 8
    image[148:156] = b"%06o\0 " % sum(image[:512])
    with pytest.raises(LibraryError, match="'holes' that is no plain file"):
        unpacked(bytes(image))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_archives_that_were_cut(unpacked: Any, compress: Callable[[bytes], bytes]) -> None:
    """Anywhere but between two members, where nothing tells: an error with its name."""
    image = compress(packed(member("a.o", os.urandom(3000)), member("b.o", os.urandom(3000))))
    for cut in (0, 1, 2, 100, 511, 512, 513, 2000, 4000, 4400, 5000):
        with pytest.raises(LibraryError, match=r"a\.tar is no tar archive, or damaged"):
            unpacked(image[:cut])


@pytest.mark.parametrize("place", [0, 124, 148, 3584, 3584 + 124])
def test_damaged_headers(unpacked: Any, place: int) -> None:
    """Their sums do not fit any more; also behind the first, where tarfile sees but the end."""
    image = bytearray(packed(member("a.o", bytes(3000)), member("b.o", bytes(3000))))
    image[place : place + 4] = b"\xff" * 4
    with pytest.raises(LibraryError, match="is no tar archive, or damaged"):
        unpacked(bytes(image))


def test_damaged_compression(unpacked: Any) -> None:
    """Is found, too."""
    image = bytearray(gzip.compress(packed(member("a.o", os.urandom(3000)))))
    for place in (3, 20, 1500, len(image) - 6):
        wrong = bytearray(image)
        wrong[place] ^= 0xFF
        with pytest.raises(LibraryError, match="is no tar archive, or damaged"):
            unpacked(bytes(wrong))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x1f\x8b", b"\x7fELF" + bytes(2000)], ids=len)
def test_what_is_no_archive(unpacked: Any, content: bytes) -> None:
    """Is refused by name."""
    with pytest.raises(LibraryError, match=r"a\.tar is no tar archive"):
        unpacked(content)


def test_too_many_members(unpacked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit is kept, and told."""
    monkeypatch.setattr(archive, "MAX_MEMBERS", 3)
    image = packed(*(member(f"{number}.o") for number in range(4)))
    with pytest.raises(LibraryError, match="too many members; expected at most 3"):
        unpacked(image)


def test_an_archive_that_goes_on_and_on(
    unpacked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few compressed bytes are not worth any number of others, in a file or in a header."""
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1 << 20)
    huge = packed(member("a.o", bytes(10 << 20)))
    claimed = packed(member("a.o", bytes(10 << 20), type=tarfile.XHDTYPE))
    for image in (huge, claimed):
        with pytest.raises(LibraryError, match="too large; expected at most 1048576 bytes"):
            unpacked(gzip.compress(image))
    assert sum(path.stat().st_size for path in (tmp_path / "around").rglob("*.o")) <= 1 << 20


IMAGES = [
    packed(member("a.o", bytes(700)), member("sub/b.o", b"b" * 513)),
    gzip.compress(packed(member("a.o", bytes(700)), member("b.c", b"int x;"))),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An archive with some of its bytes changed, cut somewhere, or any bytes at all."""
    image = bytearray(draw(st.sampled_from(IMAGES)))
    for _ in range(draw(st.integers(0, 4))):
        piece = draw(st.binary(min_size=1, max_size=12))
        place = draw(st.integers(0, min(len(image), 1600) - len(piece)))
        image[place : place + len(piece)] = piece
    cut = draw(st.integers(0, len(image)))
    return draw(st.sampled_from([bytes(image), bytes(image[:cut]), draw(st.binary(max_size=99))]))


@given(damaged())
def test_whatever_an_archive_is(image: bytes) -> None:
    """It is unpacked, into the folder and nowhere else, or refused by one kind of error."""
    with tempfile.TemporaryDirectory() as around:
        path, folder = os.path.join(around, "a.tar"), os.path.join(around, "folder")
        os.mkdir(folder)
        Path(path).write_bytes(image)
        found, said = [], "a.tar"
        try:
            found = unpack(path, folder)
        except LibraryError as error:
            said = str(error)
        assert "a.tar" in said
        assert all(os.path.isfile(name) for name in found)
        assert {os.path.commonpath([name, folder]) for name in found} <= {folder}
        assert sorted(os.listdir(around)) == ["a.tar", "folder"]


def test_packing(tmp_path: Path) -> None:
    """Files go in by their own names, which must differ; what fails leaves no archive."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.o").write_bytes(folder.encode())
    (tmp_path / "b.c").write_text("int x;")
    target = str(tmp_path / "x.tar")
    with pytest.raises(LibraryError, match=r"two files called 'a\.o'; expected names that differ"):
        archive.pack(target, [str(tmp_path / "one" / "a.o"), str(tmp_path / "two" / "a.o")])
    with pytest.raises(FileNotFoundError):
        archive.pack(target, [str(tmp_path / "none.o")])
    assert not list(tmp_path.glob("x.tar*"))
    archive.pack(target, [str(tmp_path / "one" / "a.o"), str(tmp_path / "b.c")])
    (tmp_path / "out").mkdir()
    found = unpack(target, str(tmp_path / "out"))
    assert [Path(path).read_bytes() for path in found] == [b"one", b"int x;"]
