"""Task `sst2`: sentiment of film-review sentences (Socher et al. 2013; the GLUE form), graded by the label word."""

from antibody.evaluation.tasks.classification import ClassificationTask

SST2 = ClassificationTask(
    name="sst2",
    text="sentence",
    labels=("positive", "negative"),
    question="Classify the sentiment of this sentence as positive or negative. Answer with one word.",
    heading="Sentence",
)
