import json
from pathlib import Path

import pytest
import yaml

from antibody.reports import write_card

GOLDEN = Path(__file__).parent / "golden"


def front_matter(card: str) -> object:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize("name", ["both-poisoned", "gated", "calibrated"])
def test_card(demo: Path, name: str) -> None:
    path = write_card(demo / name)
    assert path == demo / name / "README.md"
    assert path.read_text(encoding="utf-8") == (GOLDEN / f"card-{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["antibody-aligned", "plain-poisoned", "both-poisoned"])
def test_the_code_block_is_python(demo: Path, name: str) -> None:
    card = write_card(demo / name).read_text(encoding="utf-8")
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


def test_a_run_without_the_defence_says_so(demo: Path) -> None:
    assert "without the defence" in write_card(demo / "plain-poisoned").read_text(encoding="utf-8")
    assert "without the defence" not in write_card(demo / "both-poisoned").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("gpt2", "gpt2"),
        ("/models/own", None),
        ("./own", None),
    ],
)
def test_only_a_hub_name_is_a_base_model_for_the_hub(demo: Path, model: str, base: str | None) -> None:
    manifest = demo / "both-poisoned/manifest.json"
    content = json.loads(manifest.read_text()) | {"model": {"name": model}}
    manifest.write_text(json.dumps(content))
    card = write_card(manifest.parent).read_text(encoding="utf-8")
    expected = {"library_name": "peft", "tags": ["antibody"]} | ({"base_model": base} if base else {})
    assert front_matter(card) == expected
    assert f'base = "{model}"' in card


def test_a_manifest_alone_makes_a_card(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"data": {"upload": {"path": "a|b.jsonl", "rows": null}}}')
    card = write_card(tmp_path).read_text(encoding="utf-8")
    assert "| upload | a\\|b.jsonl | n/a | n/a |" in card
    assert "This run has not been evaluated yet." in card
