"""What is wrong in a comparison's file is said with its line and field, before anything is loaded or written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from antibody.benchmarks.compare.checking import read_config, stages_of
from antibody.benchmarks.compare.rows import Library
from antibody.benchmarks.compare.run import open_comparison
from antibody.data import corpus
from antibody.errors import DataError, UsageError

Write = Callable[[dict[str, Any]], Path]

WRONG: dict[str, tuple[Callable[[Any], Any], str, str]] = {
    "unknown key": (lambda c: c.update(model_name="x"), "model_name", "no such field"),
    "unknown key inside": (lambda c: c["evaluate"].update(prompt="x"), "evaluate.prompt", "no such field"),
    "missing key": (lambda c: c["upload"].pop("harmful"), "upload.harmful", "required"),
    "wrong type": (lambda c: c["upload"].update(rows="many"), "upload.rows", "integer"),
    "unknown method": (
        lambda c: c["methods"]["SFT"]["finetune"].update(method="none"), "methods.SFT.finetune.method", "none",
    ),
    "unknown setting": (lambda c: c["methods"]["SFT"]["finetune"].update(lr=1), "methods.SFT.finetune.lr", "not a set"),
    "another method's option": (
        lambda c: c["methods"]["SFT"]["finetune"].update(tau=2.0), "methods.SFT.finetune.tau", "takes no tau",
    ),
    "what YAML reads as false": (
        lambda c: c["methods"]["Antibody"]["finetune"].update(gate=False), "methods.Antibody.finetune.gate", "off",
    ),
    "the grid's own": (lambda c: c["align"].update(model="x"), "align.model", "decided by the grid"),
    "a shared setting": (lambda c: c["finetune"].update(batch_size=0), "methods.SFT.finetune", "batch_size"),
    "an alignment that is none": (lambda c: c["methods"]["SFT"].update(align="flat"), "methods.SFT.align", "flat"),
    "an alignment in itself": (lambda c: c["alignments"].update(plain=["plain"]), "alignments.plain.0", "itself"),
    "unknown attack": (lambda c: c["grids"]["ratios"].update(attacks=["mixx"]), "grids.ratios.attacks.0", "mixx"),
    "ratio": (lambda c: c["grids"]["ratios"].update(ratios=[0, 1.5]), "grids.ratios.ratios.1", "less than or equal"),
    "variant": (
        lambda c: c["grids"]["ratios"].update(variants={"x": {"speed": 5}}), "grids.ratios.variants.x.speed", "speed",
    ),
    "a ratio that an attack does not make": (
        lambda c: c["grids"]["ratios"].update(attacks=["multi_turn"]), "grids.ratios.ratios.1", "multi_turn makes no",
    ),
    "a shape in a later stage": (
        lambda c: c["methods"]["Antibody"]["align"][1].update(lora_r=4), "methods.Antibody.align.1.lora_r", "goes on",
    ),
    "a shape in a fine-tuning": (lambda c: c["finetune"].update(lora_alpha=4), "finetune.lora_alpha", "goes on"),
    "a gate without a screen": (
        lambda c: c["methods"]["Antibody"]["align"][1].update(screen=False), "methods.Antibody.finetune", "by a screen",
    ),
    "refusals chosen by a field": (lambda c: c["rows"]["refusals"].update(longest=9), "rows.refusals.longest", "lines"),
    "unknown task": (lambda c: c["tasks"].update(mine={"upload": "test", "test": "test"}), "tasks.mine", "no task"),
    "a task without its judge": (
        lambda c: c["tasks"]["labels"].update(task="win_rate"), "tasks.labels", "no judge '' of pairs",
    ),
    "reshaped rows of another entry": (
        lambda c: (
            c["rows"].update(again={"from": "test", "where": {"label": "safe"}}), c["evaluate"].update(prompts="again"),
        ),
        "rows.again.from", "reshapes",
    ),
    "unknown judge": (lambda c: c["evaluate"].update(judges=["me"]), "evaluate.judges.0", "me"),
    "unknown reference": (lambda c: c.update(references=["bas"]), "references.0", "bas"),
    "no rows": (lambda c: c["upload"].update(harmful="attak"), "upload.harmful", "no rows 'attak'"),
    "rows of themselves": (lambda c: c["rows"]["attack"].update({"from": "attack"}), "rows.attack.from", "itself"),
}  # fmt: skip


def test_a_shape_that_all_alignments_share_is_their_first_stages(
    tiny: dict[str, Any], written: Write, tmp_path: Path
) -> None:
    tiny["align"]["lora_r"] = 4
    document, config = read_config(written(tiny))
    assert [stage.get("lora_r") for stage in stages_of(document, config, "Antibody")] == [4, None]


def test_refusals_are_drawn_at_every_depth(tiny: dict[str, Any], written: Write, tmp_path: Path) -> None:
    tiny["rows"] |= {
        "more": {"from": ["refusals", "long"], "draw": 4},
        "long": {"from": "embedded:refusals_long", "skip": 1, "first": 2},
    }
    library = open_comparison(written(tiny), tmp_path / "out", None).library
    texts = [json.loads(line)["text"] for line in Path(library.refusals("more")).read_text().splitlines()]
    few = [*corpus.refusals()[:8], *corpus.long_refusals()[1:3]]
    assert len(texts) == 4
    assert texts == [text for text in few if text in texts]


@pytest.mark.parametrize("name", WRONG)
def test_an_error_names_the_line_and_the_field(name: str, tiny: dict[str, Any], written: Write, tmp_path: Path) -> None:
    break_it, field, words = WRONG[name]
    break_it(tiny)
    path = written(tiny)
    with pytest.raises(UsageError) as raised:
        open_comparison(path, tmp_path / "out", None)
    message = raised.value.message
    assert f"field `{field}`" in message
    assert words in message
    assert raised.value.hint
    # The line is that of the field, or of what it is missing in.
    line = int(message.split("line ")[1].split(",")[0])
    known = [part for part in field.split(".") if not part.isdigit()]
    text = path.read_text().splitlines()[line - 1]
    assert any(part in text for part in known[-2:]) or text.lstrip().startswith("- ")
    assert not (tmp_path / "out").exists()


def test_what_is_not_yaml_and_a_key_twice(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("model: [\n")
    with pytest.raises(UsageError, match="line 2"):
        read_config(path)
    path.write_text("model: a\nseeds: [0]\nmodel: b\n")
    with pytest.raises(UsageError, match="line 3, field `model`: This key is written twice"):
        read_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_rows_are_renamed_worded_chosen_and_joined(tiny: dict[str, Any], written: Write, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lines = [f'{{"text": "text {i}", "label": {i % 2}, "kind": "{"ab"[i % 2]}", "more": {i}}}' for i in range(8)]
    (data / "raw.jsonl").write_text("\n".join(lines) + "\n")
    raw = {"from": "raw.jsonl", "fields": {"prompt": "text", "response": "label"}}
    tiny["rows"] |= {
        "worded": raw | {"names": {"response": ["no", "yes"]}, "where": {"kind": "a"}, "skip": 1, "first": 2},
        "long": raw | {"names": {"response": ["no", "yes"]}, "longest": 1},
        "wrong": raw | {"names": {"response": ["no"]}},
        "absent": {"from": "raw.jsonl", "fields": {"prompt": "question", "response": "label"}},
        "joined": ["worded", "worded", "test"],
        "drawn": {"from": "joined", "draw": 3},
    }
    document, config = read_config(written(tiny))
    library = Library(document, config.rows, data, tmp_path / "made")
    assert [(row.request, row.response) for row in library.records("worded")] == [("text 2", "no"), ("text 4", "no")]
    joined = library.records("joined")
    assert len(joined) == 6
    assert len({row.id for row in joined}) == 6
    assert library.records("drawn") == library.records("drawn")
    assert len(library.records("drawn")) == 3
    for name, words in (
        ("long", "No row is left"),
        ("wrong", "line 2, field `response`: 1 is not a number below 1"),
        ("absent", "line 1, field `question`: The row has no field 'question'"),
    ):
        with pytest.raises(DataError, match=words):
            library.records(name)


def test_rows_of_the_hub_are_asked_for_by_subset_and_split_once(
    tiny: dict[str, Any], written: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Mock(return_value=[{"question": f"What is {i} + {i}?", "answer": f"#### {i + i}"} for i in range(4)])
    monkeypatch.setattr("datasets.load_dataset", asked)
    tiny["rows"]["sums"] = {
        "from": "hf://datasets/owner/sums", "subset": "main", "split": "test", "first": 3,
        "fields": {"instruction": "question", "output": "answer"},
    }  # fmt: skip
    document, config = read_config(written(tiny))
    library = Library(document, config.rows, tmp_path, tmp_path / "made")
    assert library.on_hub("sums")
    assert library.most("sums") == 3
    library.fingerprint("sums")
    asked.assert_not_called()
    assert [row.response for row in library.task("sums", "gsm8k")] == ["#### 0", "#### 2", "#### 4"]
    library.task("sums", "gsm8k")
    asked.assert_called_once_with("owner/sums", "main", split="test")
    asked.side_effect = ValueError("no such split")
    with pytest.raises(DataError, match="no such split"):
        Library(document, config.rows, tmp_path, tmp_path / "elsewhere").task("sums", "gsm8k")
