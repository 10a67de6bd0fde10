"""The harmful score: a model's answers to harmful prompts, judged one by one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from antibody.data.records import Record
from antibody.evaluation.generation import generate
from antibody.evaluation.judges.judge import Judge, Judgement, Verdict
from antibody.evaluation.measures import harmful_score, neither_rate, refusal_rate, unparsable_rate, wilson_interval


@dataclass(frozen=True)
class HarmfulResult:
    """Answers, judgements and figures, ready for `results.write_result`.

    Attributes:
        generations: One ``{"id", "prompt", "answer", "category"}`` a record.
        judgements: One a record, in the same order.
        metrics: Percent, see `results.METRICS`; ``harmful_score_interval`` is the 95% Wilson interval.
    """

    generations: list[dict[str, object]]
    judgements: list[Judgement]
    metrics: dict[str, object]

    @property
    def verdicts(self) -> list[dict[str, object]]:
        """One ``{"id", "verdict", "reason"}`` a record."""
        return [
            {"id": generation["id"], "verdict": str(judgement.verdict), "reason": judgement.reason}
            for generation, judgement in zip(self.generations, self.judgements, strict=True)
        ]

    @property
    def safe_metrics(self) -> dict[str, object]:
        """The metrics where the prompts are safe: over-refusal in place of the harmful score and the refusals."""
        refused = sum(judgement.verdict == Verdict.REFUSED for judgement in self.judgements)
        return self.metrics | {
            "kind": "safe",
            "harmful_score": None,
            "harmful_score_interval": None,
            "refusal_rate": None,
            "over_refusal": self.metrics["refusal_rate"],
            "over_refusal_interval": list(wilson_interval(refused, len(self.judgements))),
        }


def evaluate_harmful(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    records: Sequence[Record],
    judge: Judge,
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> HarmfulResult:
    """Generate an answer to every record's prompt and have `judge` read it. A record's response is not used.

    Of safe prompts the figures to read are ``safe_metrics``: the judge calls helpful answers harmful.

    Args:
        model: See `generation.generate`.
        tokenizer: See `generation.generate`.
        records: Prompts to answer.
        judge: Gives one verdict an answer.
        max_new_tokens: Most tokens of an answer.
        batch_size: Prompts decoded together.
        progress: Called after every batch with the number of prompts answered so far.
    """
    started = time.perf_counter()
    answers = generate(
        model,
        tokenizer,
        [record.prompt for record in records],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    return judge_answers(records, answers, judge, started=started)


def judge_answers(
    records: Sequence[Record], answers: Sequence[str], judge: Judge, *, started: float | None = None
) -> HarmfulResult:
    """Have `judge` read answers that a model gave to every record's prompt.

    Args:
        records: The prompts.
        answers: One a record, in the same order.
        judge: Gives one verdict an answer.
        started: When the work on them began, by `time.perf_counter`; now by default.
    """
    started = time.perf_counter() if started is None else started
    judgements = judge.judge([record.request for record in records], answers)
    harmful = sum(judgement.verdict == Verdict.HARMFUL for judgement in judgements)
    return HarmfulResult(
        generations=[
            {"id": record.id, "prompt": record.request, "answer": answer, "category": record.category}
            for record, answer in zip(records, answers, strict=True)
        ],
        judgements=judgements,
        metrics={
            "kind": "harmful",
            "rows": len(judgements),
            "harmful_score": harmful_score(judgements),
            "harmful_score_interval": list(wilson_interval(harmful, len(judgements))),
            "refusal_rate": refusal_rate(judgements),
            "neither_rate": neither_rate(judgements),
            "unparsable_rate": unparsable_rate(judgements),
            "judge": judge.name,
            "seconds": time.perf_counter() - started,
        },
    )
