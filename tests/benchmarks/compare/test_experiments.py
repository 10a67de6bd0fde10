"""The experiments of the repository: they are complete, and their plans are what they say, without loading a model."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from conftest import REAL_DATA

from antibody.benchmarks.compare.estimate import dry_run
from antibody.benchmarks.compare.plan import Plan
from antibody.benchmarks.compare.run import open_comparison

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
PAPER = sorted(EXPERIMENTS.glob("paper-*.yaml"))


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_paper_s_experiments(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven methods on three tasks, three seeds; the Hub is not asked."""
    for name in ("transformers.AutoModelForCausalLM.from_pretrained", "datasets.load_dataset"):
        monkeypatch.setattr(name, Mock(side_effect=AssertionError("nothing is loaded")))
    opened = open_comparison(path, tmp_path / "out", None)
    found = dry_run(opened, probe=False)
    # sft, vaccine, repnoise, booster, published and ours.
    assert found["alignments"] == {"all": 6 * 3, "done": 0}
    # At a fifth: three tasks; SST-2 and GSM8K at four more ratios; three variants. Eleven methods, three seeds.
    assert found["finetunings"]["all"] == (3 + 2 * 4 + 3) * 11 * 3
    assert found["seconds"] is None
    assert "no cell is measured" in found["measured_by"]
    assert not (tmp_path / "out").exists()


def test_the_paper_s_experiments_differ_in_model_and_batch_alone() -> None:
    contents = [yaml.safe_load(path.read_text()) for path in PAPER]
    assert len(contents) == 3
    for content in contents:
        del content["model"], content["align"]["batch_size"], content["finetune"]["batch_size"]
    assert contents[0] == contents[1] == contents[2]


def test_the_first_experiment_needs_nothing_but_the_package(tmp_path: Path) -> None:
    plan = open_comparison(EXPERIMENTS / "first.yaml", tmp_path / "out", None).plan
    assert len(plan.cells) == 2 * 2 + 2


@pytest.mark.real_data
def test_the_laptop_s_experiment(tmp_path: Path) -> None:
    """Ten pairs, three ratios, two tasks, three seeds; what a report answers is from test halves."""
    plan: Plan = open_comparison(EXPERIMENTS / "laptop.yaml", tmp_path / "out", REAL_DATA).plan
    grid = [cell for cell in plan.cells if cell.labels["grid"] == "poison ratio"]
    assert len(grid) == 10 * 3 * 2 * 3
    # Three plain stages for all, and two for each of the five alignments and seed.
    assert len([stage for stage in plan.stages.values() if not stage.calibrates]) == 3 + 5 * 2 * 3
    content = yaml.safe_load((EXPERIMENTS / "laptop.yaml").read_text())
    aligned_on = {content["rows"][name]["from"] for name in ("harmful", "alpaca")}
    assert aligned_on == {"beavertails_qa_dev.jsonl", "alpaca_benign.jsonl"}
    # SST-2's test half is called dev.
    assert all(
        "_test" in content["rows"][name]["from"] for name in ("attack", "prompts", "safe_xstest", "ag_news_test")
    )


@pytest.mark.real_data
def test_where_the_defence_holds(tmp_path: Path) -> None:
    """Six ratios and three sorted; twelve extremes; six and three of tasks, four at five times the steps; five methods
    under fifteen attacks; eight variants at two ratios, two at one, two at a large learning rate; three ratios that
    refuse less, two at a large learning rate: for three seeds, where cells that two grids share are measured once.
    """
    plan = open_comparison(EXPERIMENTS / "robustness.yaml", tmp_path / "out", REAL_DATA).plan
    grid = [cell for cell in plan.cells if cell.labels["grid"] != "references"]
    assert len(grid) == (6 + 3 + 12 + 6 + 3 + 4 + 5 * 15 + 8 * 2 + 2 + 2 * 2 + 3 + 2) * 3
    assert len({cell.key for cell in grid}) < len(grid)
