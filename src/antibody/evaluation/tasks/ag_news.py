"""Task `ag_news`: the topic of a news item (Zhang et al. 2015), graded by the label word."""

from antibody.evaluation.tasks.classification import ClassificationTask

AG_NEWS = ClassificationTask(
    name="ag_news",
    text="text",
    labels=("World", "Sports", "Business", "Sci/Tech"),
    question="Classify the topic of this news item as World, Sports, Business or Sci/Tech. Answer with one label.",
    heading="News",
)
