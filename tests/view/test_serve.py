from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from srl_swe.errors import UserError
from srl_swe.trajectories import save_jsonl
from srl_swe.types import Action, Step, Trajectory
from srl_swe.view.collect import Sources
from srl_swe.view.serve import LivePage, LiveServer, opened_server

Get = Callable[..., HTTPResponse]


def rollout(number: int) -> Trajectory:
    return Trajectory(f"a__b-{number}", (Step("t", Action("submit")),))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with one rollout."""
    folder = tmp_path / "run"
    folder.mkdir()
    save_jsonl(folder / "rollouts.jsonl", [rollout(0)])
    return folder


def add(run: Path, number: int) -> None:
    with (run / "rollouts.jsonl").open("a") as file:
        file.write(
            (run / "rollouts.jsonl").read_text().splitlines()[0].replace("b-0", f"b-{number}")
        )
        file.write("\n")


@pytest.fixture
def live(run: Path, tmp_path: Path) -> LivePage:
    """A page that looks at its folder at every request."""
    pages = tmp_path / "pages"
    pages.mkdir()
    return LivePage([run], Sources(), "run", pages, look_s=0.0, share=1.0)


@pytest.fixture
def server(live: LivePage) -> Iterator[LiveServer]:
    live.refresh()
    with LiveServer(live) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def get(server: LiveServer) -> Iterator[Get]:
    """Asks for an address below the random word, or for a whole path."""
    port = int(server.server_address[1])
    opened = []

    def ask(name: str = "", method: str = "GET", path: str = "", **headers: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        opened.append(connection)
        wanted = {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request(method, path or f"/{server.word}/{name}", headers=wanted)
        return connection.getresponse()

    yield ask
    for connection in opened:
        connection.close()


def rows(html: str) -> list[str]:
    found = re.search(r'id="rows">(.*?)</script>', html)
    assert found is not None
    names, values = json.loads(found[1]).values()
    return [row[names.index("instance_id")] for row in values]


def test_the_page_and_its_data_are_served(get: Get) -> None:
    answer = get()
    html = answer.read().decode()
    assert (answer.status, rows(html)) == (200, ["a__b-0"])
    assert '"data": "v1-data"' in html
    assert get("v1-data/chunk-0.js").read().startswith(b"srlViewChunk(0, ")
    assert get("version").read() == b"1"


def test_a_new_rollout_is_a_new_version_and_the_last_one_stays(get: Get, run: Path) -> None:
    add(run, 1)
    assert get("version").read() == b"2"
    assert rows(get().read().decode()) == ["a__b-0", "a__b-1"]
    assert get("v1-data/chunk-0.js").status == 200
    add(run, 2)
    assert get("version").read() == b"3"
    assert get("v1-data/chunk-0.js").status == 404


def test_without_a_change_nothing_is_rebuilt(get: Get) -> None:
    assert [get("version").read() for _ in range(3)] == [b"1"] * 3


def test_a_line_that_is_being_written_spoils_nothing(get: Get, run: Path) -> None:
    with (run / "rollouts.jsonl").open("a") as file:
        file.write('{"instance_id": "a__')
    assert get("version").read() == b"2"
    assert rows(get().read().decode()) == ["a__b-0"]


def test_a_run_that_is_removed_keeps_its_last_page(get: Get, run: Path, live: LivePage) -> None:
    (run / "rollouts.jsonl").unlink()
    run.rmdir()
    assert get("version").read() == b"1"
    assert "does not exist" in live.problem
    assert rows(get().read().decode()) == ["a__b-0"]


def test_a_folder_is_looked_at_seldom_if_its_page_takes_long(run: Path, tmp_path: Path) -> None:
    seconds = iter([0.0, 5.0, 49.0, 51.0, 52.0])
    page = LivePage([run], Sources(), "run", tmp_path, clock=lambda: next(seconds))
    assert page.refresh() == 1
    add(run, 1)
    assert page.refresh() == 1, "five seconds of work, so 45 of rest"
    assert page.refresh() == 2


@pytest.mark.parametrize(
    "path", ["/", "/version", "/wrong/", "/%s/../%s/version", "/%s/../../etc/passwd"]
)
def test_without_the_word_there_is_nothing(get: Get, path: str) -> None:
    assert get(path=path.replace("%s", "x")).status == 404


def test_the_word_without_its_slash_would_be_a_page_without_data(
    get: Get, server: LiveServer
) -> None:
    assert get(path=f"/{server.word}").status == 404


@pytest.mark.parametrize(
    "name",
    ["v1.html", "v1-data/../v1.html", "..%2f..%2fetc%2fpasswd", "v1-data/", "v1-data/%00.js", "x"],
)
def test_no_other_file_is_served(get: Get, name: str) -> None:
    assert get(name).status == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_another_host_in_the_address_is_refused(get: Get, host: str) -> None:
    assert get(Host=host).status == 403


@pytest.mark.parametrize("host", ["localhost:1234", "127.0.0.1", "[::1]:8000"])
def test_every_name_of_this_machine_is_served(get: Get, host: str) -> None:
    assert get(Host=host).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_can_load_nothing(get: Get, site: str) -> None:
    assert get("v1-data/chunk-0.js", Sec_Fetch_Site=site).status == 403
    assert get().headers["Cross-Origin-Resource-Policy"] == "same-origin"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(get: Get, method: str) -> None:
    answer = get(method=method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_a_head_has_no_body(get: Get) -> None:
    answer = get(method="HEAD")
    assert (answer.status, answer.read()) == (200, b"")


def test_a_page_may_ask_its_own_server_and_run_its_own_script_only(get: Get) -> None:
    html = get().read().decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', html)
    assert "default-src &#39;none&#39;" in policy
    assert "connect-src &#39;self&#39;" in policy
    assert "unsafe" not in policy
    assert get("version").headers["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_only_this_machine_reaches_it_and_each_server_has_its_own_word(run: Path) -> None:
    words = set()
    for _ in range(2):
        with opened_server([run], Sources(), "run") as server:
            assert server.url.startswith("http://127.0.0.1:")
            words.add(server.word)
    assert len(words) == 2
    assert all(len(word) >= 20 for word in words)


def test_a_port_in_use_and_an_empty_folder_are_mistakes(run: Path, tmp_path: Path) -> None:
    with opened_server([run], Sources(), "run") as server:
        port = int(server.server_address[1])
        with (
            pytest.raises(UserError, match=f"port {port} can't be used.*--port"),
            opened_server([run], Sources(), "run", port),
        ):
            pass
    with pytest.raises(UserError), opened_server([tmp_path / "none"], Sources(), "x"):
        pass
