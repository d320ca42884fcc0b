"""Image files: archives read like folders, unsafe and damaged ones refused, and every kind of pixel."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nas.common.errors import InputError
from nas.data import image_files
from nas.data.archives import ARCHIVE_SUFFIXES
from nas.data.image_decoding import decode_into
from nas.data.image_files import contents, list_files
from nas.data.image_layout import find_layout

TAR_MODES = {
    ".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tbz2": "w:bz2", ".tar.xz": "w:xz", ".txz": "w:xz",
}  # fmt: skip


def image_bytes(seed: int = 0, suffix: str = "png") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, suffix)
    return stream.getvalue()


def write_folder(root: Path, *files: str) -> Path:
    for seed, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image_bytes(seed))
    return root


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        suffix = next(s for s in TAR_MODES if path.name.endswith(s))
        with tarfile.open(path, TAR_MODES[suffix]) as tar:  # type: ignore[call-overload]
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def decoded(path: Path) -> tuple[tuple[str, ...], dict[str, np.ndarray], tuple[str, ...]]:
    layout = find_layout(path, list_files(path))
    images = {part: np.zeros((len(items), 3, 8, 8), dtype=np.uint8) for part, items in layout.parts.items()}
    return layout.classes, images, decode_into(path, layout, images).corrupt


def paths(path: Path) -> dict[str, list[tuple[str, int]]]:
    return find_layout(path, list_files(path)).parts


FILES = {
    f"{part}/{name}/{number}.png": image_bytes(number)
    for part in ("train", "val", "test")
    for number, name in enumerate(("cat", "dog", "cat"))
}


@pytest.mark.parametrize("wrapper", ["", "./", "photos/"])
@pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
def test_an_archive_reads_like_its_folder(tmp_path: Path, suffix: str, wrapper: str) -> None:
    backwards = {wrapper + name: FILES[name] for name in reversed(FILES)}
    archive = write_archive(tmp_path / f"data{suffix}", {**backwards, f"{wrapper}README.txt": b"text"})
    for name, content in FILES.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(content)
    classes, images, corrupt = decoded(archive)
    classes_of_folder, images_of_folder, _ = decoded(tmp_path / "data")
    assert classes == classes_of_folder == ("cat", "dog")
    assert corrupt == ()
    assert images.keys() == images_of_folder.keys() == {"train", "val", "test"}
    for part, array in images.items():
        assert (array == images_of_folder[part]).all()
        assert array.std(axis=(1, 2, 3)).min() > 10
    assert sorted(os.listdir(tmp_path)) == sorted(["data", f"data{suffix}"])  # nothing is unpacked


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_litter_is_ignored_and_nested_images_count(tmp_path: Path, suffix: str) -> None:
    wanted = ["a/1.png", "a/deep/er/2.PNG", "b/3.png"]
    litter = [
        "__MACOSX/a/._1.png",
        "a/._1.png",
        "a/.DS_Store",
        ".git/x/1.png",
        "a/.thumbs/1.png",
        "a/notes.txt",
        "1.png",
    ]
    archive = write_archive(tmp_path / f"x{suffix}", dict.fromkeys(wanted + litter, image_bytes()))
    folder = write_folder(tmp_path / "x", *wanted, *litter)
    expected = {"train": [("a/1.png", 0), ("a/deep/er/2.PNG", 0), ("b/3.png", 1)]}
    assert paths(archive) == paths(folder) == expected


def test_backslashes_of_windows_archives(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("a\\1.png", "b\\1.png"):
            opened.writestr(name, image_bytes())
    assert paths(archive) == {"train": [("a/1.png", 0), ("b/1.png", 1)]}


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", "1.png", "2.png")
    root = write_folder(tmp_path / "x", "b/1.png")
    (root / "a").symlink_to(elsewhere)
    (root / "b" / "again").symlink_to(root)
    (root / "b" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert paths(root) == {"train": [("a/1.png", 0), ("a/2.png", 0), ("b/1.png", 1), ("b/lost.png", 1)]}


def _linking(kind: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("a/link.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)

    return add


def _named(name: str) -> Callable[[tarfile.TarFile], None]:
    return lambda archive: archive.addfile(tarfile.TarInfo(name))


@pytest.mark.parametrize(
    ("add", "message"),
    [
        (_named("../x.png"), r"member '\.\./x\.png' is a path with \.\."),
        (_named("a/../../x"), r"member 'a/\.\./\.\./x' is a path with \.\."),
        (_named("/etc/x.png"), "member '/etc/x.png' is an absolute path"),
        (_linking(tarfile.SYMTYPE), "member 'a/link.png' is a symbolic link"),
        (_linking(tarfile.LNKTYPE), "member 'a/link.png' is a hard link"),
        (_linking(tarfile.CHRTYPE), "member 'a/link.png' is a device"),
        (_linking(tarfile.FIFOTYPE), "member 'a/link.png' is a device"),
    ],
)
def test_an_unsafe_tar_is_refused_as_a_whole(
    tmp_path: Path, add: Callable[[tarfile.TarFile], None], message: str
) -> None:
    archive = write_archive(tmp_path / "x.tar", FILES)
    with tarfile.open(archive, "a") as opened:
        add(opened)
    with pytest.raises(InputError, match=rf"x\.tar: {message}"):
        list_files(archive)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("../x.png", 0, r"member '\.\./x\.png' is a path with \.\."),
        ("..\\x.png", 0, r"member '\.\./x\.png' is a path with \.\."),
        ("/x.png", 0, "member '/x.png' is an absolute path"),
        ("a/l.png", stat.S_IFLNK | 0o777, "member 'a/l.png' is a symbolic link"),
        ("a/l.png", stat.S_IFBLK | 0o777, "member 'a/l.png' is a device"),
    ],
)
def test_an_unsafe_zip_is_refused_as_a_whole(tmp_path: Path, name: str, mode: int, message: str) -> None:
    archive = write_archive(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(archive, "a") as opened:
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        opened.writestr(member, "target")
    with pytest.raises(InputError, match=rf"x\.zip: {message}"):
        list_files(archive)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.97, 0.999])
@pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
def test_a_truncated_archive_is_one_sentence(tmp_path: Path, suffix: str, share: float) -> None:
    archive = write_archive(tmp_path / f"x{suffix}", FILES)
    whole = archive.read_bytes()
    if suffix == ".tar":  # ends in zeros up to a full record, which may be missing
        whole = whole.rstrip(b"\0")
    archive.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match=rf"x{suffix}: not a whole archive of the kind") as caught:
        list_files(archive)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ARCHIVE_SUFFIXES)
def test_other_content_than_the_name_says(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"x{suffix}"
    archive.write_bytes(np.random.default_rng(0).bytes(5_000))
    with pytest.raises(InputError, match="not a whole archive of the kind") as caught:
        list_files(archive)
    assert "\n" not in str(caught.value)


def test_rubbish_between_the_members_of_a_tar(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "x.tar", FILES)
    content = bytearray(archive.read_bytes())
    second = 512 + -(-len(next(iter(FILES.values()))) // 512) * 512
    content[second : second + 512] = b"x" * 512
    archive.write_bytes(content)
    with pytest.raises(InputError, match="has no end mark"):
        list_files(archive)


def test_a_damaged_member_of_a_zip(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "x.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[200] ^= 255
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.zip: not a whole archive"):
        decoded(archive)


def test_encrypted_doubled_and_other_files(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "x.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag of a password, in the first entry of the directory
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"member 'train/cat/0\.png' is encrypted"):
        list_files(archive)
    twice = write_archive(tmp_path / "x.tar", {"a/1.png": b"", "./a/1.png": b""})
    with pytest.raises(InputError, match=r"holds 'a/1\.png' twice"):
        list_files(twice)
    with pytest.raises(InputError, match=r"test_image_files\.py: neither a folder nor an archive \(\.tar, \.tar\.gz"):
        list_files(Path(__file__))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a/1.png", "train/b/1.png", "val/a/1.png"], "val: class 'b' of .*train is missing here"),
        (["train/a/1.png", "train/b/1.png", "test/b/1.png"], "test: class 'a' of .*train is missing here"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "val/c: a class that .*train does not have"),
        (["train/a/1.png", "train/b/x.txt"], "train/b: no images"),
        (["a/1.png", "b/notes.txt"], "b: no images"),
        (["train/a/1.png"], "train: needs one folder a class, at least two; found only 'a'"),
        (["1.png", "2.png"], "needs one folder a class, at least two; found none"),
        (["a/notes.txt"], r"holds no images \(\.jpg"),
        (["val/a/1.png", "test/a/1.png"], "has test/, val/ but no train/"),
        (["train/a/1.png", "val/a/1.png", "valid/a/1.png"], "has both val/ and valid/"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".tar"])
def test_layouts_that_are_refused(tmp_path: Path, files: list[str], message: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix:
        write_archive(path, dict.fromkeys(files, image_bytes()))
    else:
        write_folder(path, *files)
    with pytest.raises(InputError, match=f"x{suffix}.*{message}"):
        find_layout(path, list_files(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp", "tif", "tiff", "gif", "ppm", "pgm"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image = Image.fromarray(np.full((8, 8, 3), 128, dtype=np.uint8))
        extra: dict[str, Any] = (
            {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]} if suffix == "gif" else {}
        )
        (image.convert("L") if suffix == "pgm" else image).save(tmp_path / name / f"1.{suffix}", **extra)
    _, images, corrupt = decoded(tmp_path)
    assert corrupt == ()
    assert abs(images["train"].astype(int) - 128).max() <= 3  # the first frame


def test_a_few_corrupt_images_are_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "x", *(f"{name}/{i:02}.png" for name in "ab" for i in range(20)))
    (root / "b" / "07.png").write_bytes(image_bytes()[:-60])
    (root / "a" / "03.png").write_bytes(b"")
    _, images, corrupt = decoded(root)
    assert corrupt == ("a/03.png", "b/07.png")
    assert np.flatnonzero(images["train"].std(axis=(1, 2, 3)) < 10).tolist() in ([3], [3, 27])
    (root / "a" / "11.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"3 of 40 images \(7\.5%\).* the 5% .* is a/03\.png: not an image of a known"):
        decoded(root)


def test_a_class_that_loses_all_its_images(tmp_path: Path) -> None:
    files = [*(f"train/a/{i:02}.png" for i in range(60)), "train/b/1.png", "val/a/1.png", "val/b/1.png"]
    root = write_folder(tmp_path / "x", *files)
    (root / "val" / "b" / "1.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"no image of class 'b' in val is readable; val/b/1\.png: not an image"):
        decoded(root)


def test_a_decompression_bomb_is_corrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "x", *(f"{name}/{i:02}.png" for name in "ab" for i in range(20)))
    Image.new("L", (400, 400)).save(root / "b" / "07.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    assert decoded(root)[2] == ("b/07.png",)


def test_a_sparse_file_in_an_archive_is_refused_unread(tmp_path: Path) -> None:
    """Ten kilobytes of archive asked for 40 GiB."""
    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "x.png").open("wb") as file:
        file.truncate(40 << 30)
    for form in ("gnu", "posix"):
        archive = tmp_path / f"{form}.tar"
        subprocess.run(["tar", "-Scf", archive, f"--format={form}", "-C", tmp_path, "a"], check=True)
        assert archive.stat().st_size < 20_000
        with pytest.raises(InputError, match=r"tar: member 'a/x\.png' is a sparse file"):
            list_files(archive)


@pytest.mark.parametrize("suffix", [".zip", pytest.param(".tar.gz", marks=pytest.mark.slow)])
def test_no_more_of_a_member_is_held_than_is_of_use(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of zeros takes a thousandth of its size in an archive."""
    monkeypatch.setattr(image_files, "MOST_BYTES", 1 << 20)
    big = {**FILES, "a/big.png": bytes(64 << 20), "LICENSE": bytes(64 << 20)}
    archive = write_archive(tmp_path / f"x{suffix}", big)
    tracemalloc.start()
    try:
        listing = list_files(archive)
        read = dict(contents(archive, listing.files))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20
    assert len(listing.notices["LICENSE"]) < 1 << 20
    big_one = read["a/big.png"]
    assert isinstance(big_one, io.BytesIO)
    assert big_one.getbuffer().nbytes == 1 << 20
