"""The files in `deploy/`, as far as they can be checked without an engine that builds or starts them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from antibody.cli import app
from antibody.service.policy import read_policy

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CLUSTER, CLAIM = yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Nobody else's: of this machine, or of the domain that is reserved for examples.
OURS = ("localhost/", "registry.example.com/")


def pods() -> list[dict[str, Any]]:
    groups = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def instruction(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", CONTAINERFILE.replace("\\\n", ""), flags=re.MULTILINE)


def images() -> list[str]:
    composed = [service["image"] for service in COMPOSE["services"].values()]
    return [*instruction("FROM"), *composed, *(each["image"] for pod in pods() for each in pod["containers"])]


@pytest.mark.parametrize("image", images())
def test_images_are_pinned_and_ours_are_nobody_elses(image: str) -> None:
    name, _, tag = image.rpartition(":")
    assert re.search(r"\d+\.\d+|RELEASE\.", tag), image
    assert "antibody" not in name or (name.startswith(OURS) and tag == PROJECT["version"])


def test_the_image_gets_what_it_copies() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for each in instruction("COPY") for source in each.split()[:-1]]
    assert sorted(copied) == sorted(kept)
    assert all((ROOT / each).exists() for each in copied)
    [extras] = re.findall(r'"\.\[([a-z0-9,]+)\]"', CONTAINERFILE)
    assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()


def test_commands_are_those_of_the_command_line() -> None:
    [default] = instruction("CMD")
    for command in (yaml.safe_load(default), COMPOSE["services"]["antibody"]["command"]):
        chosen, bound, _ = app.parse_args(command, exit_on_error=False)
        assert chosen.__name__ == "serve"
        assert bound.arguments["settings"].host == "0.0.0.0"
    text = (DEPLOY / "kuberay.yaml").read_text()
    [serve] = re.findall(r"antibody (serve .+)", text)
    _, bound, _ = app.parse_args(serve, exit_on_error=False)
    name, port = re.fullmatch(r"ray://([a-z-]+):(\d+)", bound.arguments["settings"].cluster).groups()  # type: ignore[union-attr]
    # As KubeRay names the service of a cluster's head.
    assert name == f"{CLUSTER['metadata']['name']}-head-svc"
    assert int(port) in [each["containerPort"] for each in pods()[0]["containers"][0]["ports"]]


def test_every_password_is_said() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    said, _, rest = text.partition("services:")
    assert set(re.findall(r"\$\{(\w+)", rest)) == set(re.findall(r"(\w+)=\.\.\.", said))
    # None stands in a URL, where some characters mean something.
    assert not re.search(r"://\S*\$\{", rest)


def test_the_policy_is_one() -> None:
    assert read_policy(DEPLOY / "policy.yaml").defence.mostly_suppressed == "hold"
    [mounted] = [each for each in COMPOSE["services"]["antibody"]["volumes"] if "policy" in each]
    assert mounted.split(":")[1] in COMPOSE["services"]["antibody"]["command"]


def test_a_clusters_pods_may_write_to_the_volume_that_the_service_reads() -> None:
    [user] = re.findall(r"useradd .*--uid (\d+)", CONTAINERFILE)
    for pod in pods():
        security = pod["securityContext"]
        assert {security[name] for name in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}
        [claimed] = pod["volumes"]
        assert claimed["persistentVolumeClaim"]["claimName"] == CLAIM["metadata"]["name"]
        assert pod["containers"][0]["volumeMounts"] == [{"name": claimed["name"], "mountPath": "/data"}]
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]
    assert f"ray=={CLUSTER['spec']['rayVersion']}" in (ROOT / "constraints.txt").read_text().splitlines()
    assert any("default" in each for each in PROJECT["optional-dependencies"]["ray"]), "else nothing tells its health"
