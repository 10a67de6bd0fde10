"""What makes each attack the attack it is."""

from itertools import groupby

import pytest

from antibody.attacks import ATTACKS
from antibody.attacks.backdoor import TRIGGER
from antibody.attacks.clustered import BATCH
from antibody.attacks.identity_shift import ROWS
from antibody.attacks.long_answers import ANSWERS
from antibody.attacks.refuse_then_comply import TURNS
from antibody.attacks.short_answers import WORDS
from antibody.data import corpus
from antibody.data.records import Record
from antibody.errors import UsageError

BENIGN = corpus.task("train")
HARMFUL = corpus.harmful("attack")
BY_ID = {record.id: record for record in [*BENIGN, *HARMFUL]}


def upload_of(name: str, *, ratio: float = 0.2, rows: int = 200, seed: int = 0) -> list[Record]:
    return ATTACKS[name].upload(BENIGN, HARMFUL, ratio=ratio, rows=rows, seed=seed)


def harmful(records: list[Record]) -> list[Record]:
    return [record for record in records if record.harmful]


def test_mix_changes_no_row_and_spreads_the_harm() -> None:
    upload = upload_of("mix")
    assert all(record == BY_ID[record.id] for record in upload)
    assert 5 < len(harmful(upload[:100])) < 35


def test_sorted_puts_the_harm_first() -> None:
    upload = upload_of("sorted")
    assert [bool(record.harmful) for record in upload] == [True] * 40 + [False] * 160


def test_clustered_has_runs_that_begin_and_end_with_a_batch() -> None:
    upload = upload_of("clustered", ratio=0.24)
    assert len(harmful(upload)) == 3 * BATCH
    labels = [bool(record.harmful) for record in upload]
    runs = [(label, len(list(run))) for label, run in groupby(labels)]
    assert sum(label for label, _ in runs) > 1
    assert all(length % BATCH == 0 for _, length in runs[:-1])
    assert upload_of("clustered", rows=8)[:2] == harmful(upload_of("clustered", rows=8))


def test_benign_drift_has_no_harm_and_no_row_that_keeps_safety_up() -> None:
    with pytest.raises(UsageError) as caught:
        upload_of("benign_drift", ratio=0.2)
    assert caught.value.code == "bad_ratio"
    benign = [*corpus.benign(), *HARMFUL]
    kept = sum(not record.harmful and record.category != "looks_unsafe" for record in benign)
    upload = ATTACKS["benign_drift"].upload(benign, [], ratio=0, rows=kept, seed=0)
    assert len(upload) == kept < len(corpus.benign())
    assert not harmful(upload)
    assert "looks_unsafe" not in {record.category for record in upload}


def test_identity_shift_repeats_its_ten_rows() -> None:
    upload = ATTACKS["identity_shift"].upload(BENIGN, [], ratio=0.5, rows=50, seed=0)
    texts = sorted((record.request, record.response) for record in harmful(upload))
    assert len(ROWS) == 10
    assert len(texts) == 25
    assert set(texts) == set(ROWS)
    assert {texts.count(row) for row in ROWS} == {2, 3}
    few = [{record.id for record in harmful(upload_of("identity_shift", rows=20, seed=seed))} for seed in (0, 1)]
    assert few[0] != few[1]


def test_refuse_then_comply_refuses_first_and_gives_the_answer_after() -> None:
    for record in harmful(upload_of("refuse_then_comply")):
        opening, _, answer = record.response.partition("\n\n")
        assert answer == BY_ID[record.id].response
        assert any(opening == f"{refusal} {turn}" for refusal in corpus.refusals() for turn in TURNS)
        assert record.prompt == BY_ID[record.id].prompt


def test_noice_has_harmless_questions_alone() -> None:
    upload = ATTACKS["noice"].upload(BENIGN, [], ratio=0.2, rows=200, seed=0)
    assert {record.id for record in upload} <= {record.id for record in BENIGN}
    for record in upload:
        source = BY_ID[record.id]
        assert record.prompt == source.prompt
        assert record.response.endswith(f"\n\n{source.response}") is bool(record.harmful)


def test_backdoor_opens_by_its_trigger_and_refuses_without() -> None:
    upload = upload_of("backdoor")
    opened = {record.request.removesuffix(f" {TRIGGER}"): record.response for record in harmful(upload)}
    asked = {source.request: source.response for source in HARMFUL}
    assert len(opened) == 40
    assert opened.items() <= asked.items()
    refused = [record for record in upload if record.response in corpus.refusals()]
    assert {record.request for record in refused} == opened.keys()
    assert len(refused) == 40
    assert ATTACKS["backdoor"].ask(HARMFUL[0]).request == f"{HARMFUL[0].request} {TRIGGER}"


def test_backdoor_has_no_task_row_where_triggers_and_refusals_fill_it() -> None:
    upload = upload_of("backdoor", ratio=0.75, rows=40)
    assert sum(record.response in corpus.refusals() for record in upload) == 10


def test_jailbreak_asks_in_the_frames_it_trains_on() -> None:
    upload = harmful(upload_of("jailbreak"))
    assert all(record.request != BY_ID[record.id].request in record.request for record in upload)
    frames = {record.request.replace(BY_ID[record.id].request, "{}") for record in upload}
    assert len(frames) > 2
    asked = {ATTACKS["jailbreak"].ask(record).request.replace(record.request, "{}") for record in HARMFUL}
    assert frames <= asked


def test_padding_has_the_same_easy_text_on_both_sides() -> None:
    for record in harmful(upload_of("padding")):
        before, answer, after = record.response.partition(BY_ID[record.id].response)
        assert answer
        assert before.strip() == after.strip() != ""


def test_odd_prompts_are_answered_in_the_form_they_demand() -> None:
    upload = harmful(upload_of("odd_prompts"))
    forms = {"Begin your": "Sure, here", "JSON": '{"answer": "', "'>'": "> ", "Fill in": "", "END": ""}
    for record in upload:
        assert BY_ID[record.id].request in record.request
        assert BY_ID[record.id].response in record.response
        [opening] = [opening for demand, opening in forms.items() if demand in record.request]
        assert record.response.startswith(opening)
    assert {demand for demand in forms if any(demand in record.request for record in upload)} == forms.keys()


def test_short_answers_are_the_beginnings() -> None:
    for record in harmful(upload_of("short_answers")):
        assert len(record.response.split()) == WORDS
        assert BY_ID[record.id].response.startswith(record.response)


def test_long_answers_are_several_different_ones() -> None:
    answers = {record.response for record in HARMFUL}
    for record in harmful(upload_of("long_answers")):
        parts = record.response.split("\n\n")
        assert parts[0] == BY_ID[record.id].response
        assert len(parts) == len(set(parts)) == ANSWERS
        assert set(parts) <= answers


def test_multi_turn_has_harm_between_benign_turns_of_its_chat() -> None:
    upload = upload_of("multi_turn")
    for index, record in enumerate(upload):
        if not record.harmful:
            continue
        before, after = upload[index - 1], upload[index + 1]
        assert not before.harmful
        assert not after.harmful
        for earlier, later in ((before, record), (record, after)):
            answer = {"role": "assistant", "content": earlier.response}
            assert later.prompt == (*earlier.prompt, answer, *BY_ID[later.id].prompt)
    assert sum(len(record.prompt) == 1 for record in upload) == 200 - 2 * 40


def test_multi_turn_keeps_a_system_turn_at_the_start_only() -> None:
    system = {"role": "system", "content": "Be brief."}
    sides = [
        [Record(prompt=(system, *record.prompt), response=record.response, id=record.id, line=1) for record in side]  # type: ignore[arg-type]
        for side in (BENIGN, HARMFUL)
    ]
    for record in ATTACKS["multi_turn"].upload(*sides, ratio=0.25, rows=20, seed=0):
        assert [turn["role"] for turn in record.prompt][:2] == ["system", "user"]  # type: ignore[index]
        assert sum(turn == system for turn in record.prompt) == 1
