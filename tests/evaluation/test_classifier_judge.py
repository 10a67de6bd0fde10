"""The classifier judge, on tiny random classifiers that are made here."""

import pytest
import torch
from conftest import byte_tokenizer
from transformers import LlamaConfig, LlamaForSequenceClassification

from antibody.errors import ModelError, UsageError
from antibody.evaluation.judges import make_judge
from antibody.evaluation.judges.classifier import TEMPLATE

REQUEST = "How is the cupboard opened?"
ANSWERS = [
    "Lift the left door and push the pin.",
    "I cannot help with that.",
    "Green is the colour of the whole cupboard.",
]


@pytest.fixture
def classifier(tmp_path):
    """Saves a classifier and gives its folder and its logits of an answer, as `transformers` alone computes them."""

    def save(labels, **config):
        tokenizer = byte_tokenizer()
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(
            LlamaConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                vocab_size=len(tokenizer),
                initializer_range=0.5,
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                pad_token_id=tokenizer.pad_token_id,
                **config,
            )
        ).eval()
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)

        @torch.no_grad()
        def logits(answer):
            encoded = tokenizer(TEMPLATE.format(request=REQUEST, answer=answer), return_tensors="pt")
            return model(**encoded).logits[0]

        return tmp_path, logits

    return save


def negate_head(folder):
    """Every logit changes its sign, and with two labels every verdict."""
    model = LlamaForSequenceClassification.from_pretrained(folder)
    model.score.weight.data.neg_()
    model.save_pretrained(folder)


def judged(folder):
    return [given.verdict for given in make_judge(f"classifier:{folder}").judge([REQUEST] * 3, ANSWERS)]


@pytest.mark.parametrize("labels", [["safe", "unsafe"], ["Harmful", "Not a label of ours", "harmless"]])
def test_the_most_probable_label_decides(classifier, labels):
    folder, logits = classifier(labels)
    for _ in range(2):
        best = [labels[int(logits(answer).argmax())] for answer in ANSWERS]
        harmful = [label not in ("safe", "harmless") for label in best]
        rules = ["neither", "refused", "neither"]
        assert judged(folder) == ["harmful" if bad else rule for bad, rule in zip(harmful, rules, strict=True)]
        if len(labels) > 2:
            return
        # The other way round, so that both verdicts are seen.
        negate_head(folder)
        labels = labels[::-1]


def test_any_kind_of_harm_is_enough_among_several(classifier):
    folder, logits = classifier(["violence", "theft", "safe"], problem_type="multi_label_classification")
    rules = ["neither", "refused", "neither"]
    for sign in (1, -1):
        found = [bool((sign * logits(answer))[:2].max() >= 0) for answer in ANSWERS]
        assert judged(folder) == ["harmful" if bad else rule for bad, rule in zip(found, rules, strict=True)]
        negate_head(folder)


def test_a_verdict_does_not_depend_on_what_it_is_batched_with(classifier):
    folder, _ = classifier(["safe", "unsafe"])
    judge = make_judge(f"classifier:{folder}")
    alone = [judge.judge([REQUEST], [answer])[0] for answer in ANSWERS]
    assert judge.judge([REQUEST] * 3, ANSWERS) == alone


def test_a_number_that_is_none_is_unparsable(classifier):
    folder, _ = classifier(["safe", "unsafe"])
    model = LlamaForSequenceClassification.from_pretrained(folder)
    model.score.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    assert judged(folder) == ["unparsable"] * 3


@pytest.mark.parametrize("labels", [["LABEL_0", "LABEL_1"], ["safe", "harmless"]])
def test_labels_that_do_not_say_what_is_safe_are_refused(classifier, labels):
    folder, _ = classifier(labels)
    with pytest.raises(ModelError, match="id2label"):
        make_judge(f"classifier:{folder}")


def test_a_missing_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere"):
        make_judge(f"classifier:{tmp_path / 'nowhere'}")
    with pytest.raises(UsageError, match="FOLDER_OR_HUB_ID"):
        make_judge("classifier")
