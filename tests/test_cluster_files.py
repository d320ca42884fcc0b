"""The files of cluster/: what Ray, KubeRay, Kubernetes and SLURM would read, checked or run by real parts of them."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import BRIEF
from typer.main import get_command

from nas.cli.app import app
from nas.cli.search import STOPPED_EARLY

PROJECT = Path(__file__).parents[1]
CLUSTER = PROJECT / "cluster"
SCRIPTS = Path(sys.executable).parent


def _yaml(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def _rayjob() -> tuple[dict[str, Any], dict[str, Any]]:
    claim, job = yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text())
    return claim, job


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


# ---------------------------------------------------------------- ray up


def _validate_for_ray_up(config: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


@pytest.mark.parametrize("name", ["ray-up.yaml", "ray-local.yaml"])
def test_ray_up_takes_the_configuration(name: str) -> None:
    config = _yaml(name)
    _validate_for_ray_up(copy.deepcopy(config))
    config["head_start_ray_comands"] = config.pop("head_start_ray_commands")
    with pytest.raises(jsonschema.ValidationError, match="head_start_ray_comands"):
        _validate_for_ray_up(config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's own modules
@pytest.mark.parametrize("name", ["ray-up.yaml", "ray-local.yaml"])
def test_start_commands_are_flags_of_ray_start_and_open_no_dashboard(name: str) -> None:
    from ray.scripts.scripts import start

    config = _yaml(name)
    known = {option for parameter in start.params for option in parameter.opts}
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    starts = [shlex.split(command.partition("ray start")[2]) for command in commands if "ray start" in command]
    assert len(starts) == 2
    for arguments in starts:
        assert {argument.partition("=")[0] for argument in arguments} <= known
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_workers_of_ray_up_are_what_accelerator_asks_for() -> None:
    workers = _yaml("ray-up.yaml")["available_node_types"]["t4"]
    assert workers["resources"]["accelerator_type:T4"] >= 1
    assert workers["resources"]["GPU"] == 1


# ---------------------------------------------------------------- KubeRay


def _check_rayjob(job: dict[str, Any]) -> None:
    jsonschema.validate(job, json.loads((Path(__file__).parent / "rayjob_schema.json").read_text()))
    cluster = job["spec"]["rayClusterSpec"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        template = group["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "pod", **template.get("metadata", {})},
            "spec": template["spec"],
        }
        kubernetes_validate.validate(pod, "1.31", strict=True)


def test_rayjob_and_its_pods_fit_their_schemas() -> None:
    claim, job = _rayjob()
    kubernetes_validate.validate(claim, "1.31", strict=True)
    _check_rayjob(job)
    (volume,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


@pytest.mark.parametrize(
    "misspell",
    [
        lambda job: job["spec"].update(backofLimit=1),
        lambda job: job["spec"]["rayClusterSpec"].update(authOption={}),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0].update(replica=2),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].update(gracePeriod=9),
        lambda job: job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0].update(cmd=[]),
    ],
)
def test_a_misspelt_field_of_the_rayjob_fails(misspell: Callable[[dict[str, Any]], None]) -> None:
    _, job = _rayjob()
    misspell(job)
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        _check_rayjob(job)


def test_rayjob_stops_the_search_whose_directory_it_made() -> None:
    _, job = _rayjob()
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (container,) = head["containers"]
    stop = container["lifecycle"]["preStop"]["exec"]["command"][-1]
    words = shlex.split(job["spec"]["entrypoint"])
    directory = words[words.index("/opt/nas/cluster/search.sh") + 1]
    assert f"nas stop {directory};" in stop
    assert f"flock {directory}/.lock true" in stop
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(Path(directory).parent) in mounts


@pytest.mark.subprocess
@pytest.mark.parametrize(("evicted", "code"), [(False, 0), (False, STOPPED_EARLY), (True, STOPPED_EARLY), (True, 0)])
def test_rayjob_fails_where_its_head_was_evicted_so_that_it_is_tried_again(
    tmp_path: Path, evicted: bool, code: int
) -> None:
    _, job = _rayjob()
    (container,) = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    runs = tmp_path / "runs"
    (runs / "search").mkdir(parents=True)
    (runs / "evicted").touch()  # by the head before this one

    def here(text: str) -> str:
        return text.replace("/runs", str(runs)).replace("/opt/nas/cluster", str(tmp_path))

    _script(tmp_path / "nas", f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    stop = here(shlex.join(container["lifecycle"]["preStop"]["exec"]["command"]))
    _script(tmp_path / "search.sh", f"#!/bin/sh\n{stop if evicted else ':'}\nexit {code}\n")
    ended = subprocess.run(
        here(job["spec"]["entrypoint"]), shell=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=20, check=False
    )
    assert (ended.returncode != 0) == (evicted and code != 0)
    assert not evicted or (tmp_path / "said").read_text() == f"stop {runs}/search\n"


# ---------------------------------------------------------------- one image, one version


def test_dockerfile_copies_what_is_there_and_has_the_version_of_the_others() -> None:
    text = (CLUSTER / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (PROJECT / source).exists(), source
    steps = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).split("\n")
    assert {step.split()[0] for step in steps if step} == {"FROM", "RUN", "ARG", "WORKDIR", "COPY", "ENV", "USER"}
    assert [step for step in steps if step.startswith("USER")] == ["USER ray"]
    (version,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", text, re.MULTILINE)
    assert _rayjob()[1]["spec"]["rayClusterSpec"]["rayVersion"] == version
    assert f"ray[default]=={version}" in (CLUSTER / "ray-local.yaml").read_text()
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    from packaging.requirements import Requirement

    wanted = [*project["dependencies"], *project["optional-dependencies"]["cluster"]]
    for requirement in map(Requirement, wanted):
        if requirement.name == "ray":
            assert requirement.specifier.contains(version)
    image = f"/nas:{project['version']}"
    assert all(image in (CLUSTER / name).read_text() for name in ("Dockerfile", "ray-up.yaml", "rayjob.yaml"))


# ---------------------------------------------------------------- search.sh and slurm.sh


@pytest.mark.subprocess
def test_scripts_pass_shellcheck() -> None:
    scripts = [str(path) for path in CLUSTER.glob("*.sh")]
    assert len(scripts) == 2
    checked = subprocess.run(
        [SCRIPTS / "shellcheck", *scripts], capture_output=True, text=True, timeout=30, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.subprocess
def test_search_script_starts_and_then_resumes(tmp_path: Path) -> None:
    _script(tmp_path / "nas", '#!/bin/sh\nprintf "%s\\n" "$@"\n')

    def run() -> list[str]:
        return subprocess.run(
            [CLUSTER / "search.sh", "results/big", "cifar", "--trials", "500", "--data", "my images"],
            cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip

    first = ["search", "cifar", "--trials", "500", "--data", "my images", "--out", "results/big", "--address", "auto"]
    assert run() == first
    (tmp_path / "results/big").mkdir(parents=True)
    (tmp_path / "results/big/run.yaml").touch()
    assert run() == ["search", "--resume", "results/big", "--address", "auto"]


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs slurm.sh in a checkout of its own, with an allocation of two nodes that are both this machine."""
    bin_, checkout = tmp_path / "bin", tmp_path / "checkout"
    bin_.mkdir()
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / "cluster").symlink_to(CLUSTER)
    (checkout / ".venv/bin/activate").write_text(f'PATH="{bin_}:{SCRIPTS}:$PATH"\n')
    _script(bin_ / "nas", f'#!/bin/sh\nexec {sys.executable} -m nas.cli "$@"\n')
    _script(
        bin_ / "srun",
        f'#!/bin/sh\necho "$@" >> {tmp_path}/srun\nwhile case $1 in --*) ;; *) false ;; esac; do shift; done\nexec "$@"\n',
    )
    _script(
        bin_ / "scontrol",
        f'#!/bin/sh\nif [ "$1" = show ]; then printf "one\\ntwo\\n"; else echo "$@" >> {tmp_path}/scontrol; fi\n',
    )
    number = 1000 + os.getpid() % 4000
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{bin_}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "SLURM_SUBMIT_DIR": str(checkout),
        "SLURM_JOB_ID": str(number),
        "SLURM_JOB_NODELIST": "nodes[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
    }
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        job = subprocess.Popen(
            [CLUSTER / "slurm.sh", *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(job)
        return job

    yield start
    for job in started:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    shutil.rmtree(f"/tmp/ray-{number}", ignore_errors=True)


@pytest.mark.subprocess
@pytest.mark.slow
def test_slurm_job_stops_gently_before_its_time_is_over_and_is_queued_again(
    slurm: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    job = slurm("digits", "--trials", "60", *BRIEF, "--confirm", "0")
    assert job.stdout is not None
    said = []
    for line in job.stdout:
        said.append(line)
        if line.startswith("[1/60]"):
            job.send_signal(signal.SIGUSR1)
            break
    said.append(job.communicate(timeout=120)[0])
    assert job.returncode == STOPPED_EARLY, "".join(said)
    (directory,) = (tmp_path / "checkout/results").iterdir()
    assert f"nas search --resume results/{directory.name}" in "".join(said)
    assert (tmp_path / "scontrol").read_text().split() == ["requeue", directory.name.removeprefix("slurm-")]
    head, others = sorted((tmp_path / "srun").read_text().splitlines(), key=lambda line: "--head" not in line)
    assert "--nodelist=one" in head
    assert "--exclude=one" in others
    assert re.search(r"--address=[0-9.]+:2[0-9]{4}$", others)
    assert 1 <= len((directory / "trials.jsonl").read_text().splitlines()) < 60


# ---------------------------------------------------------------- the commands


def test_nas_commands_of_the_files_and_their_documentation_are_real() -> None:
    paths = [*CLUSTER.glob("*.sh"), *CLUSTER.glob("*.yaml"), PROJECT / "docs/cluster.md"]
    texts = [re.sub(r"\s*\\\n\s*", " ", path.read_text()) for path in paths] + [_rayjob()[1]["spec"]["entrypoint"]]
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    flags = {
        name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for name, command in commands.items()
    }
    seen = set()
    for text in texts:
        for command, rest in re.findall(r"(?:\bnas ([a-z]+)|cluster/\w+\.sh(?= [^-]))([^`;&|\n#]*)", text):
            assert command in {*flags, ""}, command
            used = set(re.findall(r"(?<!\S)--[a-z-]+", rest))
            assert used <= flags[command or "search"], (command, rest)
            seen |= used
    assert {"--address", "--accelerator", "--replica", "--trial-timeout"} <= seen
