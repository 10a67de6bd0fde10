"""The policy file, keys and held jobs on the command line, and what `serve` refuses before it serves."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from antibody.cli import run
from antibody.errors import UsageError
from antibody.service.policy import read_policy
from antibody.service.serve import bound
from antibody.service.settings import ServeSettings


def written(folder: Path, text: str) -> Path:
    (folder / "policy.yaml").write_text(text)
    return folder / "policy.yaml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "does not map"),
        ("models: {a: b: c}", "cannot be read"),
        ("colour: red", r"yaml: colour is not known\. Known there: models, defence, evaluation, "),
        ("defense: {gate: off}", r"defense is not known \(did you mean defence\?\)"),
        ("limits: {chat_token: 5}", r"limits\.chat_token is not known \(did you mean chat_tokens\?\)"),
        (
            "models: {a: {runs: x}}",
            r"models\.a\.runs is not known .*did you mean run.*\nmodels\.a\.run is missing",
        ),
        (
            "defence: {gate: anhcor}",
            r"gate cannot be 'anhcor' \(did you mean anchor\?\)\. Allowed: off, mask",
        ),
        ("limits: {active_jobs: many}", r"limits\.active_jobs cannot be 'many': "),
        ("defence: 5", r"defence cannot be 5: "),
        ("defence: {mostly_suppressed: explode}", "defence.mostly_suppressed"),
        ("evaluation: {most_harmful_score: 101}", "evaluation.most_harmful_score"),
        ("limits: {least_examples: 0}", "limits.least_examples"),
        ("models: {../a: {run: x}}", "models.../a: a name has"),
        ("models: {a: {}}", "models.a.run"),
        ("defence: {threshold: 0}", "defence.threshold"),
        ("defence: {gate: off, mostly_suppressed: hold}", "judges no row"),
        ("training: {device: gpu}", "training.device cannot be 'gpu'"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_policy(written(tmp_path, text))


def test_what_yaml_reads_otherwise_is_meant_as_written(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, "defence: {gate: off}\nlimits:\nmodels:\n"), ("a=b",))
    assert policy.defence.gate == "off"
    assert (policy.limits.chat_tokens, list(policy.models)) == (512, ["a"])


def test_models_are_named_in_the_policy_or_on_the_command_line(tmp_path: Path) -> None:
    policy = read_policy(written(tmp_path, "models: {a: {run: x, n_epochs: 2}, b: {run: y}}"), ("b=z", "c=w=1"))
    assert {name: base.run for name, base in policy.models.items()} == {"a": "x", "b": "z", "c": "w=1"}
    assert policy.models["a"].n_epochs == 2
    assert policy.defence.gate == "anchor"
    for bad in ("a", "=x", "a="):
        with pytest.raises(UsageError):
            read_policy(None, (bad,))


def test_serving_what_is_not_aligned_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--model", f"a={tmp_path}", "--folder", str(tmp_path / "data")]) == 2
    assert "no finished aligned run" in capsys.readouterr().err
    # What a user's rows fine-tuned is no base for others.
    (tmp_path / "manifest.json").write_text('{"kind": "finetuning"}')
    assert run(["serve", "--model", f"a={tmp_path}", "--folder", str(tmp_path / "data")]) == 2
    assert not (tmp_path / "data").exists()
    for wrong in ({"slots": -1}, {"lease_seconds": 0}, {"processes": 2}):
        values: dict[str, Any] = wrong
        with pytest.raises(UsageError):
            ServeSettings(**values)
    assert run(["serve", "--database", "oracle://x", "--model", "a=b", "--folder", str(tmp_path)]) == 2


def test_prompts_that_cannot_be_asked_are_known_before_a_job_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "manifest.json").write_text('{"kind": "alignment"}')
    for prompts in (str(tmp_path / "none.jsonl"), "embedded:nothing"):
        policy = written(tmp_path, f"models: {{a: {{run: {tmp_path}}}}}\nevaluation: {{prompts: '{prompts}'}}")
        assert run(["serve", "--policy", str(policy), "--folder", str(tmp_path / "data")]) == 2
        assert "evaluation.prompts cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_a_port_that_is_taken_is_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        # Before the bundled model is aligned, or anything is made.
        assert run(["serve", "--port", str(port), "--folder", str(tmp_path / "data")]) == 2
    said = capsys.readouterr().err
    assert f"port {port}: Address already in use" in said
    assert "--port" in said
    assert not (tmp_path / "data").exists()
    for host, number in (("127.0.0.1", 70_000), ("not a host", 0), ("::1", -1)):
        with pytest.raises(UsageError, match="cannot listen"):
            bound(host, number)
    with bound("127.0.0.1", 0) as free:
        assert free.getsockname()[1] > 0


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> str:
        capsys.readouterr()
        assert run([*arguments, "--folder", str(tmp_path)]) == 0
        return capsys.readouterr().out

    made = json.loads(call("keys", "create", "--project", "acme", "--name", "laptop", "--json"))
    assert call("keys", "create").startswith("sk-antibody-")
    listed = json.loads(call("keys", "list", "--json"))["keys"]
    assert [(key["project"], key["name"]) for key in listed] == [("acme", "laptop"), ("default", "")]
    assert made["key"].startswith(f"sk-antibody-{made['id']}-")
    assert made["key"].rpartition("-")[2] not in call("keys", "list")
    call("keys", "revoke", made["id"])
    assert json.loads(call("keys", "list", "--json"))["keys"][0]["revoked_at"]
    assert run(["keys", "revoke", made["id"], "--folder", str(tmp_path)]) == 2
    assert run(["keys", "create", "--project", "A B", "--folder", str(tmp_path)]) == 2
    assert json.loads(call("review", "list", "--json")) == {"jobs": []}
    assert run(["review", "approve", "ftjob-x", "--folder", str(tmp_path)]) == 2
