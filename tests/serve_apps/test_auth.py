import asyncio
import base64
import hashlib
from pathlib import Path

import pytest

from optirag_core.errors import ConfigError
from serve_apps.auth import FILE_VARIABLE, HASHES_VARIABLE, LOOK_S, RequireToken, Tokens, main, new_token
from tests.serve_apps.guarded import HASHES, TOKEN, exchanged, guarded_app, head, post, served


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def _line(token: str, name: str = "somebody") -> str:
    return f"{name} {hashlib.sha256(token.encode()).hexdigest()}\n"


def test_a_new_token_opens_with_its_own_line() -> None:
    token, line = new_token("ann")
    assert len(token) == 43  # 256 bits in base64
    assert line == _line(token, "ann").strip() and token not in line
    assert Tokens(hashes=line).accepts(token.encode())
    assert new_token("ann")[0] != token


@pytest.mark.parametrize("name", ["", "two words", "a#b", "a,b", "a\n", "x" * 101])
def test_a_name_that_no_line_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="1 to 100 characters"):
        new_token(name)


def test_the_command_prints_token_and_line(capsys: pytest.CaptureFixture) -> None:
    main(["new", "--name", "ann"])
    token, line = (printed.split(":  ")[1].strip() for printed in capsys.readouterr().out.splitlines())
    assert Tokens(hashes=line).accepts(token.encode())


def test_several_tokens_from_file_and_variable(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("# tokens\n\n" + _line("one") + _line("two").strip() + "  # rotated in June\n")
    tokens = Tokens.from_environment(environment={FILE_VARIABLE: str(file), HASHES_VARIABLE: _line("three").strip()})
    assert [tokens.accepts(token) for token in (b"one", b"two", b"three", b"four", b"")] == [True] * 3 + [False] * 2


def test_the_hash_is_no_token() -> None:
    assert not Tokens(hashes=HASHES).accepts(HASHES.split()[1].encode())


def test_tokens_rotate_without_a_restart(tmp_path: Path) -> None:
    file, clock = tmp_path / "tokens", Clock()
    file.write_text(_line("old"))
    tokens = Tokens(file, clock=clock)
    file.write_text(_line("old") + _line("new"))
    assert not tokens.accepts(b"new")  # within the second nobody looks
    clock.now += LOOK_S
    assert tokens.accepts(b"new") and tokens.accepts(b"old")
    file.write_text(_line("new"))
    clock.now += LOOK_S
    assert tokens.accepts(b"new") and not tokens.accepts(b"old")
    file.write_text("")
    clock.now += LOOK_S
    assert not tokens.accepts(b"new")


@pytest.mark.parametrize("content", [b"my-secret-token\n", b"\xff\xfe", b"a" * ((1 << 20) + 1), None])
def test_a_broken_file_leaves_the_last_good_tokens(
    content: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "tokens", Clock()
    file.write_text(_line("good"))
    tokens = Tokens(file, clock=clock)
    file.unlink() if content is None else file.write_bytes(content)
    clock.now += LOOK_S
    assert tokens.accepts(b"good")
    assert "the last good 1 stay" in caplog.text and "secret" not in caplog.text
    file.write_text(_line("repaired"))
    clock.now += LOOK_S
    assert tokens.accepts(b"repaired") and not tokens.accepts(b"good")


def test_a_malformed_line_is_named_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(_line("good") + "my-secret-token\n")
    with pytest.raises(ConfigError, match="line 2: expected") as raised:
        Tokens(file)
    assert "secret" not in str(raised.value)


def test_no_tokens_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="insecure-no-auth"):
        Tokens.from_environment(environment={})
    with pytest.raises(ConfigError, match="cannot be read"):
        Tokens.from_environment(tmp_path / "none", environment={})


def _authorization(value: str) -> bytes:
    return head("GET", "/docs", f"Authorization: {value}", "Connection: close", token=None)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_who_gets_in() -> None:
    good = [f"Bearer {TOKEN}", f"bearer  {TOKEN}", _basic("anybody", TOKEN), _basic("", TOKEN)]
    bad = [
        "Bearer", "Bearer ", "Bearer wrong", f"Bearer {TOKEN} {TOKEN}", f"Token {TOKEN}", TOKEN, "Basic !!!",
        _basic(TOKEN, ""), _basic(TOKEN, "wrong"), "Basic " + base64.b64encode(TOKEN.encode()).decode(),
        "Bearer " + "x" * 5000, f"Bearer {HASHES.split()[1]}",
    ]  # fmt: skip
    with served(guarded_app()) as port:
        assert [exchanged(port, _authorization(value)) for value in good] == [[200]] * len(good)
        assert [exchanged(port, _authorization(value)) for value in bad] == [[401]] * len(bad)
        twice = head("GET", "/docs", f"Authorization: Bearer {TOKEN}", "Connection: close")
        assert exchanged(port, twice) == [401]


def test_every_path_but_probes_needs_a_token() -> None:
    paths = [
        "/",
        "/docs",
        "/openapi.json",
        "/v1/score",
        "/none",
        "/healthz/",
        "//healthz",
        "/HEALTHZ",
        "/v1/../healthz",
    ]
    with served(guarded_app()) as port:
        assert [exchanged(port, head("GET", path, token=None)) for path in paths] == [[401]] * len(paths)
        assert exchanged(port, head("GET", "/healthz", "Connection: close", token=None)) == [200]
        assert exchanged(port, post(token=None)) == exchanged(port, post(token="wrong")) == [401]


def test_a_refused_body_is_not_read() -> None:
    with served(guarded_app()) as port:
        unsent = head("POST", "/v1/score", "Content-Length: 1000000000", token=None)
        assert exchanged(port, unsent, timeout_s=5) == [401]  # and the connection is closed


def test_no_web_sockets() -> None:
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(RequireToken(guarded_app(), Tokens(hashes=HASHES))({"type": "websocket"}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]
