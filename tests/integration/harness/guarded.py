"""A Redis that lets in the users of docker/users.acl alone, started as compose starts it."""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from console.redis_server import _free_port
from tests.integration.harness.processes import ROOT, Program
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

USERS_FILE = ROOT / "docker" / "users.acl"
START_SCRIPT = ROOT / "docker" / "start-redis.sh"
USERS = ("producer", "worker", "reembed", "operator")
ADMIN = "admin"
_ADMIN_RULE = f"user {ADMIN} reset on #SHA256 allcommands allkeys allchannels"
_STARTS = 5


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """The running server; `admin` is the test's own connection, which may do everything."""

    port: int
    passwords: dict[str, str]
    namespace: str
    admin: redis.Redis

    def url(self, user: str) -> str:
        """Where the server listens, with the user's password."""
        return f"redis://{user}:{self.passwords[user]}@127.0.0.1:{self.port}/0"

    def site(self, user: str) -> Site:
        """The namespace as the user reaches it, with the administrator's view of it."""
        return Site(url=self.url(user), namespace=self.namespace, client=self.admin)

    @contextmanager
    def client(self, user: str) -> Iterator[redis.Redis]:
        """A connection of the user's."""
        with redis.Redis.from_url(self.url(user)) as client:
            yield client

    def load_scripts(self) -> None:
        """Load the scripts as a worker does for the producers, which may not."""
        with self.client("worker") as worker:
            for path in sorted((ROOT / "producer" / "wire" / "lua").glob("*.lua")):
                worker.script_load(path.read_text())

    def refusals(self) -> list[tuple[str, str, str]]:
        """Who was refused what since the log was reset: (user, reason, command, key, or channel)."""
        entries: list[dict[str, Any]] = self.admin.acl_log()
        return [(entry["username"], entry["reason"], entry["object"]) for entry in entries]

    def granted(self, user: str) -> set[str]:
        """The names of the commands that the server lets the user send, whatever their keys."""
        listed: list[Any] = self.admin.acl_list()
        (rules,) = [rule for rule in map(str, listed) if rule.startswith(f"user {user} ")]
        words = rules.replace("(", " ").replace(")", " ").split()
        return {word[1:] for word in words if word.startswith("+")}

    def used(self) -> set[str]:
        """The names of the commands that ran since the statistics were reset, in scripts too."""
        statistics: dict[str, Any] = self.admin.info("commandstats")
        return {name.removeprefix("cmdstat_") for name, entry in statistics.items() if entry["calls"]}


@contextmanager
def guarded_redis(server: Path, folder: Path, *, namespace: str = "", options: Sequence[str] = ()) -> Iterator[Guarded]:
    """Start docker/start-redis.sh with a password for each user; end the server by its own handle."""
    folder.mkdir(parents=True, exist_ok=True)
    passwords = {user: secrets.token_hex(16) for user in (*USERS, ADMIN)}
    for user, password in passwords.items():
        (folder / f"redis-{user}").write_text(f"{password}\n")
    users = folder / "with-admin.acl"
    users.write_text(f"{USERS_FILE.read_text()}{_ADMIN_RULE}\n")
    environ = start_environ(server, folder, HEADRACE_USERS_FILE=str(users), HEADRACE_NAMESPACE=namespace)
    for _ in range(_STARTS):  # somebody may take a free port before the server has it
        port = _free_port()
        program = start_server(environ, folder, port, *options)
        try:
            with redis.Redis(port=port, username=ADMIN, password=passwords[ADMIN]) as admin:
                wait_until(lambda program=program, admin=admin: not program.running or _answers(admin), what="a server")  # type: ignore[misc]
                if program.running:
                    yield Guarded(port=port, passwords=passwords, namespace=namespace, admin=admin)
                    return
        finally:
            program.stop()
    raise AssertionError(f"the server did not start:\n{program.stderr}{program.stdout}")


def start_environ(server: Path, folder: Path, **more: str) -> dict[str, str]:
    """The environment in which docker/start-redis.sh takes secrets from a folder, and writes its file there."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    own = {
        "HEADRACE_REDIS_SERVER": str(server),
        "HEADRACE_SECRETS_DIR": str(folder),
        "HEADRACE_ACL_FILE": str(folder / "server.acl"),
    }
    return {**inherited, **own, **more}


def start_server(environ: Mapping[str, str], folder: Path, port: int, *more: str) -> Program:
    """Run docker/start-redis.sh; nothing that it keeps outlives the test."""
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    return Program(["sh", str(START_SCRIPT), *options, *more], environ, folder / "server")


def _answers(client: redis.Redis) -> bool:
    with suppress(RedisError, OSError):
        return bool(client.ping())
    return False
