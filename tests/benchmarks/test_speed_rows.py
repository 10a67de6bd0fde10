import statistics

import pytest

from antibody.benchmarks.speed.rows import WORDS, alignment_rows, finetuning_rows
from antibody.errors import UsageError


def words(records: list) -> list[int]:
    return [len(record.response.split()) for record in records]


@pytest.mark.parametrize("rows", ["medium", "long", "words=20"])
def test_responses_have_the_promised_mean_and_a_spread(rows: str) -> None:
    mean = WORDS.get(rows, 20)
    for records in (finetuning_rows(rows, 200, seed=0), *alignment_rows(rows, 200, seed=0)):
        assert statistics.mean(words(records)) == pytest.approx(mean, rel=0.1)
        assert min(words(records)) >= mean // 2
        assert max(words(records)) <= 1.5 * mean
        assert max(words(records)) > 1.3 * mean


def test_short_rows_are_the_corpus_as_it_is() -> None:
    assert set(words(finetuning_rows("short", 300, seed=0))) == {1}
    align, harmful = alignment_rows("short", 64, seed=0)
    assert all(record.harmful for record in harmful)
    assert 0.3 < statistics.mean(record.id.startswith("benign") for record in align) < 0.7


def test_rows_depend_on_their_seed() -> None:
    assert finetuning_rows("medium", 8, seed=1) == finetuning_rows("medium", 8, seed=1)
    assert finetuning_rows("medium", 8, seed=1) != finetuning_rows("medium", 8, seed=2)
    # More rows begin with the same rows, so that a longer measurement repeats a shorter one.
    assert finetuning_rows("medium", 16, seed=1)[:8] == finetuning_rows("medium", 8, seed=1)


@pytest.mark.parametrize("rows", ["huge", "words=", "words=-3"])
def test_an_unknown_kind_is_refused(rows: str) -> None:
    with pytest.raises(UsageError, match="There are no rows"):
        finetuning_rows(rows, 4, seed=0)
