"""Specs, checkouts and licences of sources; distributions come from an index on this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from tarfile import LNKTYPE, REGTYPE, SYMTYPE, TarInfo
from tarfile import open as open_tar
from threading import Thread

import pytest

from srl_swe.errors import UserError
from srl_swe.generation import sdists
from srl_swe.generation.repositories import licence_of, read_source, read_spec
from srl_swe.generation.rows import built_from, repository_image, source_of_row
from srl_swe.generation.sdists import unpack
from srl_swe.git import is_clean, run_git

FILES = {
    "Acme.Widgets-1.0/PKG-INFO": b"Name: Acme.Widgets\nLicense: MIT\n",
    "Acme.Widgets-1.0/acme/__init__.py": "é = 1\n".encode(),
    "Acme.Widgets-1.0/setup.py": b"raise SystemExit('executed')\n",
    "Acme.Widgets-1.0/.gitignore": b"*.py\n",
}
SPEC = 'repository = "pypi:acme-widgets==1.0"\ntest = "pytest"\npaths = ["acme"]\n'


def _archive(files: dict[str, bytes], *members: TarInfo, mtime: int = 0) -> bytes:
    out = BytesIO()
    with open_tar(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            member = TarInfo(name)
            member.size, member.mtime = len(data), mtime
            tar.addfile(member, BytesIO(data))
        for member in members:
            tar.addfile(member, BytesIO(b"x" * member.size))
    return out.getvalue()


def _member(name: str, kind: bytes = REGTYPE, size: int = 1, link: str = "") -> TarInfo:
    member = TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = size if kind == REGTYPE else 0
    return member


@pytest.fixture
def archive() -> bytes:
    return _archive(FILES)


@pytest.fixture(params=["json", "html"])
def index(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    archive: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Path]:
    """A package index of one distribution, as pip's environment names it; its files."""
    folder = tmp_path / "index"
    page = folder / "simple" / "acme-widgets"
    page.mkdir(parents=True)
    digest = hashlib.sha256(archive).hexdigest()
    names = ("acme_widgets-1.0.tar.gz", "acme_widgets-1.0-py3-none-any.whl")
    files = [{"filename": n, "url": f"../../{n}", "hashes": {"sha256": digest}} for n in names]
    links = "".join(f'<a href="../../{n}#sha256={digest}">{n}</a>' for n in names)
    (folder / names[0]).write_bytes(archive)
    as_json = request.param == "json"
    (page / "index.html").write_text(json.dumps({"files": files}) if as_json else links)

    class Handler(SimpleHTTPRequestHandler):
        def guess_type(self, path: object) -> str:
            return sdists._JSON if as_json else "text/html"

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    yield folder
    server.shutdown()
    server.server_close()


@pytest.fixture
def spec(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "widgets.toml"
        path.write_text(text)
        return path

    return write


def _pinned(archive: bytes) -> str:
    return f'{SPEC}sha256 = "{hashlib.sha256(archive).hexdigest()}"\n'


def test_a_distribution_becomes_the_same_repository_everywhere(
    index: Path, archive: bytes, spec: Callable[[str], Path], tmp_path: Path
) -> None:
    path = spec(_pinned(archive))
    source, other = (read_source(path, cache=tmp_path / name) for name in ("a", "b"))
    assert source.commit == other.commit == "fd28bfe861e6993d2f8650ac9677cca7df241e95"
    assert (source.name, source.version, source.licence) == ("widgets", "1.0", "MIT")
    assert is_clean(source.folder, source.commit)
    tracked = run_git(source.folder, "ls-files").splitlines()
    assert tracked == [".gitignore", "PKG-INFO", "acme/__init__.py", "setup.py"]
    assert (source.folder / "acme/__init__.py").read_text("utf-8") == "é = 1\n"


def test_a_source_is_kept_and_mended_without_the_index(
    index: Path, archive: bytes, spec: Callable[[str], Path], tmp_path: Path
) -> None:
    path = spec(_pinned(archive))
    source = read_source(path, cache=tmp_path / "a")
    (index / "acme_widgets-1.0.tar.gz").unlink()
    (source.folder / "acme/__init__.py").write_text("é = 2\n")
    (source.folder / "acme/more.py").write_text("")  # ignored by git
    assert read_source(path, cache=tmp_path / "a") == source
    assert (source.folder / "acme/__init__.py").read_text("utf-8") == "é = 1\n"
    assert not (source.folder / "acme/more.py").exists()


def test_a_row_leads_to_its_distribution(
    index: Path,
    archive: bytes,
    spec: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    commands = ["packages = ['python3-yaml']", "install = ['echo \"😀 \\']", ""]
    source = read_source(spec(_pinned(archive) + "\n".join(commands)), cache=tmp_path / "a")
    row = json.loads(json.dumps(built_from(source)))
    found = source_of_row(row)
    for name in ("name", "repository", "commit", "sha256", "packages", "install", "version"):
        assert getattr(found, name) == getattr(source, name)
    assert repository_image(found) == row["image"]
    assert found.folder.is_relative_to(tmp_path / "another machine")
    with pytest.raises(UserError, match=r"gives the commit fd28bfe.*, not that of the rows, 0"):
        source_of_row({**row, "commit": "0" * 40})
    with pytest.raises(UserError, match="no source distribution of the index has the sha256"):
        source_of_row({**row, "sha256": "0" * 64})


def test_a_missing_digest_is_offered(
    index: Path, archive: bytes, spec: Callable[[str], Path], tmp_path: Path
) -> None:
    digest = hashlib.sha256(archive).hexdigest()
    with pytest.raises(UserError, match=rf"sha256 is missing; the index has {digest}"):
        read_source(spec(SPEC), cache=tmp_path / "a")


def test_other_contents_under_the_same_digest_are_refused(
    index: Path, archive: bytes, spec: Callable[[str], Path], tmp_path: Path
) -> None:
    (index / "acme_widgets-1.0.tar.gz").write_bytes(_archive(FILES, mtime=1))
    with pytest.raises(UserError, match="the download has the sha256"):
        read_source(spec(_pinned(archive)), cache=tmp_path / "a")
    assert not list((tmp_path / "a").glob("widgets-*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC + f'sha256 = "{"0" * 64}"\n', "no source distribution of the index has the sha256"),
        (SPEC.replace("1.0", "2.0") + f'sha256 = "{"0" * 64}"\n', "of version 2.0"),
        (SPEC.replace("acme-widgets", "other") + f'sha256 = "{"0" * 64}"\n', "404"),
    ],
)
def test_what_the_index_lacks(
    index: Path, spec: Callable[[str], Path], tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_source(spec(text), cache=tmp_path / "a")


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (_member("a/../../b.py"), "is not a path within"),
        (_member("/etc/passwd"), "is not a path within"),
        (_member("a/.git/config"), "git's own file"),
        (_member("a/sub/.GIT/hooks/post-checkout"), "git's own file"),
        (_member("a/b\nc.py"), "is not a path within"),
        (_member("a/x.py"), "occurs twice"),
        (_member("b/y.py"), "2 top folders"),
        (_member("b.py"), "not in the archive's top folder"),
        (_member("a/pipe", kind=b"6"), "neither a file nor a folder"),
        (_member("a/big", size=1001), "exceeds"),
    ],
    ids=lambda value: value.name if isinstance(value, TarInfo) else "",
)
def test_hostile_archives_are_refused(tmp_path: Path, member: TarInfo, message: str) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(_archive({"a/x.py": b""}, member))
    with pytest.raises(UserError, match=message):
        unpack(path, max_bytes=1000)


def test_links_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    links = [_member("a/l", SYMTYPE, link="/etc"), _member("a/h", LNKTYPE, link="a/x.py")]
    path.write_bytes(_archive({"a/x.py": b"1"}, *links))
    assert unpack(path) == {"x.py": (False, b"1")}


def test_what_is_not_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"a\.tar\.gz is not a tar archive"):
        unpack(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test = [", "is not a TOML file"),
        ('repository = "x"', "'test' is not valid"),
        (SPEC + "colour = 1\n", "'colour' is not valid"),
        (SPEC + 'name = "a b"\n', "'name' is not valid"),
        (SPEC + 'packages = ["a; rm"]\n', "'packages.0' is not valid"),
        (SPEC.replace('"acme"', '"../acme"'), r"'\.\./acme' in 'paths'"),
        (SPEC.replace("==1.0", ">=1.0"), "is not pypi:NAME==VERSION"),
        (SPEC + f'base_commit = "{"0" * 40}"\n', "has a sha256 instead"),
        ('repository = "."\ntest = "pytest"\n', "'base_commit' is missing"),
    ],
)
def test_a_spec_that_is_not_valid(spec: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_spec(spec(text))


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    (folder / "COPYING.txt").write_text("")
    for arguments in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@example.invalid", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder, run_git(folder, "rev-parse", "HEAD").strip()


def test_a_folder_at_a_commit(
    repository: tuple[Path, str], spec: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, commit = repository
    (folder / "a.py").write_text("x = 2\n")  # not committed
    path = spec(f'repository = "repository"\nbase_commit = "{commit}"\ntest = "pytest"\n')
    source = read_source(path, cache=tmp_path / "cache")
    assert (source.commit, source.repository) == (commit, "repository")
    assert (source.folder / "a.py").read_text() == "x = 1\n"
    assert source.licence == "COPYING.txt"


@pytest.mark.parametrize(
    ("repository_text", "commit", "message"),
    [
        ("repository", "0" * 40, "can't be fetched"),
        ("nowhere", "0" * 40, "does not exist"),
    ],
)
def test_a_folder_that_can_not_be_fetched(
    repository: tuple[Path, str],
    spec: Callable[[str], Path],
    tmp_path: Path,
    repository_text: str,
    commit: str,
    message: str,
) -> None:
    path = spec(f'repository = "{repository_text}"\nbase_commit = "{commit}"\ntest = "pytest"\n')
    with pytest.raises(UserError, match=message):
        read_source(path, cache=tmp_path / "cache")
    assert not [entry for entry in (tmp_path / "cache").iterdir() if entry.is_dir()]


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({"PKG-INFO": "License-Expression: apache-2.0 OR mit\n"}, "Apache-2.0 OR MIT"),
        ({"PKG-INFO": "License: see LICENSE\nClassifier: License :: MIT License\n"}, "MIT"),
        ({"pyproject.toml": '[project]\nlicense = {text = "BSD-3-Clause"}\n'}, "BSD-3-Clause"),
        ({"pyproject.toml": "[project\n", "LICENCE.md": ""}, "LICENCE.md"),
        ({"a.py": ""}, ""),
    ],
)
def test_licence(tmp_path: Path, files: dict[str, str], licence: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence
