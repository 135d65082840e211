"""The images and the compose file, as far as they can be held without a Docker engine: what the build runs is run."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
import yaml

import cli
from console import reembed_jobs
from producer import ProducerSettings
from producer.settings import StoreSettings, load
from producer.wire.models import DEFAULT_EMBED_MODEL, DEFAULT_RERANK_MODEL, OFFLINE, TASKS, TaskName
from workers.models import offline
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
DEFAULT_MODELS = {"embed": DEFAULT_EMBED_MODEL, "rerank": DEFAULT_RERANK_MODEL}
REFERENCE_LIMITS = {"embed": (6, "6g"), "rerank": (4, "4g")}
"""CPUs and memory of the services that Headrace replaces."""
SETTINGS_CLASSES = (WorkerSettings, ProducerSettings, StoreSettings)
SETTINGS_VARIABLES = {field.metadata["env"] for cls in SETTINGS_CLASSES for field in fields(cls)}
SETTINGS_VARIABLES |= {f"{field.metadata['env']}_FILE" for field in fields(WorkerSettings) if field.metadata["secret"]}
WORKER = ["headrace", "reembed", "worker"]
OTHER_VARIABLES = {"PATH", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_SHARED_BLOBS", "ORT_DISABLE_TELEMETRY"}

Instruction = tuple[str, str]


def parse_dockerfile() -> tuple[dict[str, str], dict[str, tuple[str, list[Instruction]]]]:
    """Read the global arguments, and for each stage what it starts from and its instructions."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: dict[str, tuple[str, list[Instruction]]] = {}
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            stages[stage] = (base, [])
        elif name and not stages:
            key, _, value = rest.partition("=")
            arguments[key] = value
        elif name:
            stages[list(stages)[-1]][1].append((name, rest))
    return arguments, stages


ARGUMENTS, STAGES = parse_dockerfile()


def environment(stage: str, **arguments: str) -> dict[str, str]:
    """What ENV sets in a stage and in those under it, with build arguments filled in."""
    base, instructions = STAGES[stage]
    variables = environment(base, **arguments) if base in STAGES else {}
    for name, rest in instructions:
        for key, value in re.findall(r"(\w+)=(\S+)", rest if name == "ENV" else ""):
            variables[key] = re.sub(r"\$(\w+)", lambda used: {**ARGUMENTS, **arguments}.get(used[1], used[0]), value)
    return variables


def only(stage: str, name: str) -> str:
    """The one instruction of that name in a stage."""
    (rest,) = [rest for found, rest in STAGES[stage][1] if found == name]
    return rest


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def parse_command(command: list[str]) -> tuple[click.Command, dict[str, Any]]:
    """Find the command that a `headrace …` line names, and its parameters, without running it."""
    program, *arguments = command
    assert program == "headrace"
    found: click.Command = cli.main
    while isinstance(found, click.Group):
        name, *arguments = arguments
        found = found.commands[name]
    return found, found.make_context(program, arguments).params


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    subprocess.run([hadolint, "--failure-threshold", "style", DOCKERFILE], check=True)


def test_images_from_elsewhere_are_pinned() -> None:
    bases = {base for base, _ in STAGES.values() if base not in STAGES}
    for image in (*bases, SERVICES["redis"]["image"]):
        assert re.search(r":\d+\.\d+\.\d+-", image)


def test_the_build_copies_the_whole_project_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    modules = {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]}
    copied = {
        source
        for _, instructions in STAGES.values()
        for name, rest in instructions
        if name == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied == packages | modules | {"pyproject.toml", "constraints.txt", "LICENSE"}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in ignore if line.startswith("!")} == copied
    assert "*" in ignore


def test_what_builds_stays_out_of_the_images() -> None:
    installs = [rest for _, found in STAGES.values() for name, rest in found if name == "RUN" and " install " in rest]
    assert all(line.count(" install ") == line.count("--no-cache-dir") for line in installs)
    images = ("account", "pool", *TASKS, "reembed")
    commands = [rest for stage in images for name, rest in STAGES[stage][1] if name == "RUN"]
    assert [shlex.split(command)[0] for command in commands] == ["useradd", "install"]
    assert only("pool", "USER") == only("reembed", "USER") == "10001:10001"
    assert "--uid 10001 " in commands[0]


@pytest.mark.parametrize("task", TASKS)
def test_build_arguments_have_the_models_of_the_settings_table(task: TaskName) -> None:
    name = f"{task.upper()}_MODEL"
    assert ARGUMENTS[name] == DEFAULT_MODELS[task]
    assert SERVICES[task]["build"]["args"] == {name: f"${{HEADRACE_{name}:-{DEFAULT_MODELS[task]}}}"}
    assert environment(task, **{name: "other"})[f"HEADRACE_{name}"] == "other"
    assert environment(f"{task}-model", **{name: "other"})[f"HEADRACE_{name}"] == "other"


@pytest.mark.parametrize("stage", STAGES)
def test_the_images_set_only_variables_that_something_reads(stage: str) -> None:
    assert environment(stage).keys() <= SETTINGS_VARIABLES | OTHER_VARIABLES


@pytest.mark.parametrize("task", TASKS)
def test_the_hub_is_asked_while_the_image_is_built_and_never_again(task: TaskName) -> None:
    assert "HF_HUB_OFFLINE" not in environment(f"{task}-model")
    assert environment(task)["HF_HUB_OFFLINE"] == "1"
    assert environment(task)["HEADRACE_CACHE_DIR"] == environment(f"{task}-model")["HEADRACE_CACHE_DIR"] == "/models"
    assert ("COPY", f"--from={task}-model /models /models") in STAGES[task][1]


@pytest.mark.parametrize("task", TASKS)
def test_compose_sets_only_variables_of_the_settings_table(task: TaskName, tmp_path: Path) -> None:
    assert SERVICES[task]["environment"].keys() <= SETTINGS_VARIABLES
    container = environment(task) | {key: str(value) for key, value in SERVICES[task]["environment"].items()}
    (tmp_path / "redis-worker").write_text("password\n")
    container = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in container.items()}
    settings, checking = load(WorkerSettings, container), load(ProducerSettings, container)
    assert settings.processes * settings.threads == SERVICES[task]["cpus"]
    assert settings.redis_url == checking.redis_url == "redis://redis:6379/0"
    assert seconds(SERVICES[task]["stop_grace_period"]) > settings.grace_s
    # The health check looks at the queue that the pool serves.
    assert settings.namespace == checking.namespace
    assert settings.model(task) == getattr(checking, f"{task}_model") == DEFAULT_MODELS[task]


@pytest.mark.parametrize("task", TASKS)
def test_entry_points_and_health_checks_are_commands_of_headrace(task: TaskName) -> None:
    entry, _ = parse_command(json.loads(only(task, "ENTRYPOINT")))
    assert (entry.name, entry.callback) == (task, parse_command(["headrace", "worker", task])[0].callback)
    kind, *check = SERVICES[task]["healthcheck"]["test"]
    command, parameters = parse_command(check)
    assert (kind, command.name, parameters["task"], parameters["here"]) == ("CMD", "health", task, True)
    program = Path(sys.executable).with_name("headrace")
    subprocess.run([program, *check[1:], "--help"], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("task", TASKS)
def test_pools_have_the_limits_of_the_reference(task: TaskName) -> None:
    service, build = SERVICES[task], SERVICES[task]["build"]
    assert (service["cpus"], service["mem_limit"]) == REFERENCE_LIMITS[task]
    assert (build["context"], build["dockerfile"], build["target"]) == ("..", "docker/Dockerfile", task)
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert seconds(service["healthcheck"]["start_period"]) >= 180


@pytest.mark.parametrize("name", SERVICES)
def test_services_are_closed_to_the_outside(name: str) -> None:
    service = SERVICES[name]
    assert not service.keys() & {"ports", "privileged", "cap_add", "network_mode"}
    assert service["networks"] == ["headrace"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert COMPOSE["networks"]["headrace"]["internal"] is True


def test_detached_runs_have_a_worker_without_a_model(tmp_path: Path) -> None:
    service, variables = SERVICES["reembed"], environment("reembed")
    assert service["build"] == {"context": "..", "dockerfile": "docker/Dockerfile", "target": "reembed"}
    assert service["secrets"] == ["redis-reembed"]
    assert service["environment"].keys() <= SETTINGS_VARIABLES
    (tmp_path / "redis-reembed").write_text("password\n")
    container = {key: value.replace("/run/secrets", str(tmp_path)) for key, value in service["environment"].items()}
    settings = load(ProducerSettings, container)
    assert (settings.redis_user, settings.redis_password) == ("reembed", "password")
    assert service["volumes"] == ["reembed-data:/data", "reembed-state:/state"]
    assert load(StoreSettings, variables).state_dir == "/state"
    assert shlex.split(only("reembed", "RUN"))[-2:] == ["/state", "/data"]
    assert "'.[qdrant,parquet]'" in only("store-dependencies", "RUN")
    assert "/models" not in str(STAGES["reembed"])
    kind, *check = service["healthcheck"]["test"]
    assert (kind, check[:3], json.loads(only("reembed", "ENTRYPOINT"))) == ("CMD", WORKER, WORKER)
    parameters = reembed_jobs.worker.make_context("worker", check[3:]).params
    assert parameters["check"] is True


def test_redis_keeps_jobs_and_evicts_only_what_has_a_lifetime() -> None:
    redis, command = SERVICES["redis"], SERVICES["redis"]["command"]
    options = dict(zip(command[::2], command[1::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "volatile-lfu"
    assert (options["--maxmemory"], redis["mem_limit"]) == ("2gb", "4g")
    assert redis["volumes"] == ["redis-data:/data"]


@pytest.mark.parametrize("task", TASKS)
def test_a_pool_writes_only_what_it_prepares_and_measures(task: TaskName, tmp_path: Path) -> None:
    folders = {"weights": "prepared", "calibration": "calibration"}
    assert SERVICES[task]["volumes"] == [f"{task}-{name}:/models/{folder}" for name, folder in folders.items()]
    pools = {f"{task}-{name}" for task in TASKS for name in folders}
    assert set(COMPOSE["volumes"]) == {"redis-data", "reembed-data", "reembed-state", *pools}
    (tmp_path / "models").mkdir()
    run_build_step(task, "organisation/model", tmp_path, python="true")
    for folder in folders.values():
        assert (tmp_path / "models" / folder).stat().st_mode & 0o7777 == 0o1777


def test_redis_lets_in_only_users_whose_passwords_are_secrets() -> None:
    redis, secrets = SERVICES["redis"], COMPOSE["secrets"]
    users = {
        line.split()[1] for line in (ROOT / "docker" / "users.acl").read_text().splitlines() if line.startswith("user ")
    } - {"default"}
    assert secrets == {f"redis-{user}": {"file": f"secrets/redis-{user}"} for user in users}
    assert set(redis["secrets"]) == secrets.keys()
    assert "--protected-mode" not in redis["command"], "the server's own protection stays on"
    assert "default reset off" in (ROOT / "docker" / "users.acl").read_text()
    files = {config["target"]: COMPOSE["configs"][config["source"]]["file"] for config in redis["configs"]}
    assert files == {"/etc/headrace/start-redis.sh": "start-redis.sh", "/etc/headrace/users.acl": "users.acl"}
    assert redis["entrypoint"] == ["sh", "/etc/headrace/start-redis.sh"]
    assert any(folder.startswith("/tmp:") for folder in redis["tmpfs"]), "where the script writes the hashes"


@pytest.mark.parametrize("task", TASKS)
def test_pools_know_the_workers_password_and_no_other(task: TaskName) -> None:
    assert SERVICES[task]["secrets"] == ["redis-worker"]
    assert SERVICES[task]["environment"]["HEADRACE_REDIS_USER"] == "worker"
    assert SERVICES[task]["environment"]["HEADRACE_REDIS_PASSWORD_FILE"] == "/run/secrets/redis-worker"


def test_no_password_is_written_down() -> None:
    text = (ROOT / "docker" / "compose.yml").read_text()
    assert not re.search(r"://[^/\s]*@|requirepass|--pass\b|HEADRACE_REDIS_PASSWORD:", text)
    assert re.findall(r"[0-9a-f]{32,}", text + (ROOT / "docker" / "users.acl").read_text()) == []
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_documented_line_makes_the_secrets_of_compose(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()
    commands = re.findall(r"^(?:#   )?(mkdir -m 700 .*\n.*done)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    head = [line[1:].strip() for line in (ROOT / "docker" / "compose.yml").read_text().splitlines() if line[:1] == "#"]
    assert "".join(commands[0].split()) in "".join("".join(head).split())
    subprocess.run(["/bin/sh", "-c", commands[0]], check=True, cwd=tmp_path, umask=0o077)
    folder = tmp_path / "docker" / "secrets"
    made = {f"secrets/{path.name}": path.read_text() for path in folder.iterdir()}
    assert made.keys() == {secret["file"] for secret in COMPOSE["secrets"].values()}
    assert len(set(made.values())) == len(made)
    assert all(re.fullmatch(r"[0-9a-f]{64}\n", password) for password in made.values())
    # The containers' users read the files, which are mounted one by one; on the host the folder keeps others out.
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())


@pytest.mark.parametrize("shell", ["sh", "dash"])
def test_the_start_script_is_for_any_posix_shell(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    script = ROOT / "docker" / "start-redis.sh"
    assert script.read_text().startswith("#!/bin/sh\n")
    subprocess.run([shell, "-n", script], check=True)


class Hub(BaseHTTPRequestHandler):
    """Just enough of a model hub: every repository has the same files, in one revision."""

    files: ClassVar[dict[str, bytes]] = {}
    revision = "a" * 40

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        content = self.files.get(path.partition(f"/resolve/{self.revision}/")[2])
        if "/tree/" in path:
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": oid(data)} for name, data in self.files.items()
            ]
            content = json.dumps(entries).encode()
        elif path.startswith("/api/models/"):
            content = json.dumps({"id": "any/model", "sha": self.revision}).encode()
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("ETag", oid(content or b""))
        self.send_header("X-Repo-Commit", self.revision)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def oid(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture(params=TASKS)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TaskName, str]]:
    """A hub whose files are those of the offline model, laid out as the task's default model is; and the task."""
    prepare = {"embed": offline.embedder_directory, "rerank": offline.reranker_directory}[request.param]
    Hub.files = {path.name: path.read_bytes() for path in prepare(tmp_path / "source").iterdir()}
    Hub.files |= {
        "onnx/model.onnx": Hub.files[offline.MODEL_FILE],
        f"{offline.MODEL_FILE}_data": b"nothing is kept here",
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield request.param, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run_build_step(task: TaskName, model: str, home: Path, python: str = sys.executable, hub: str = "") -> list[str]:
    """Run the RUN line that fetches a model, with its paths and programs replaced; return the calls of pip."""
    programs, models = home / "programs", home / "models"
    programs.mkdir(parents=True)
    for name, text in {"pip": f'echo "$@" >> {home}/pip-calls', "python": f'exec {python} "$@"'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    image = environment(f"{task}-model", **{f"{task.upper()}_MODEL": model}) | ({"HF_ENDPOINT": hub} if hub else {})
    image |= {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home / "build-home"), "HEADRACE_CACHE_DIR": str(models)}
    line = only(f"{task}-model", "RUN").replace("/models", str(models))
    # As strict as an umask gets: that others can read the model is the line's own work.
    subprocess.run(["/bin/sh", "-c", line], check=True, env=image, cwd=ROOT, umask=0o077, capture_output=True)
    calls = home / "pip-calls"
    return calls.read_text().splitlines() if calls.exists() else []


def assert_image_serves(task: TaskName, model: str, home: Path) -> None:
    """Any user can read what was built; with the image's environment it loads, and nothing is written anywhere."""
    models, nowhere = home / "models", home / "no-home"
    for path in (models, *models.rglob("*")):
        assert path.is_symlink() or path.stat().st_mode & 0o004, f"others cannot read {path}"
    image = environment(task, **{f"{task.upper()}_MODEL": model})
    image |= {"HOME": str(nowhere), "HEADRACE_CACHE_DIR": str(models)}
    before = contents(models)
    subprocess.run(["/bin/chmod", "-R", "a-w", models], check=True)
    try:
        command = [sys.executable, "-m", "workers.models.fetch", task]
        subprocess.run(command, check=True, env=image, cwd=ROOT, capture_output=True)
    finally:
        subprocess.run(["/bin/chmod", "-R", "u+w", models], check=True)
    # Root may write where it is forbidden, so that nothing changed says more.
    assert contents(models) == before
    assert not nowhere.exists()


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything in a folder."""
    stats = {str(path): path.lstat() for path in (folder, *folder.rglob("*"))}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize("task", TASKS)
def test_an_offline_model_is_built_and_serves_read_only(task: TaskName, tmp_path: Path) -> None:
    (call,) = run_build_step(task, OFFLINE, tmp_path)
    assert call.endswith(" --constraint /dependencies/constraints.txt /dependencies[offline]")
    assert not (tmp_path / "build-home").exists()
    assert_image_serves(task, OFFLINE, tmp_path)


def test_a_model_of_the_hub_is_built_and_serves_read_only_without_it(hub: tuple[TaskName, str], tmp_path: Path) -> None:
    task, url = hub
    assert run_build_step(task, DEFAULT_MODELS[task], tmp_path, hub=url) == []
    assert_image_serves(task, DEFAULT_MODELS[task], tmp_path)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("model", "calls"), [("offline@2", 1), ("organisation/offline", 0)])
def test_the_extra_is_for_the_offline_model_alone(task: TaskName, model: str, calls: int, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert len(run_build_step(task, model, tmp_path, python="true")) == calls
