"""Data engines of pictures with their words: lines, pages, charts, shapes, photographs, conversations; and questions.

A rendered item follows from its source's seed and its key alone. Keys begin with `seen/` or `held_out/`: the text of a
held-out item is in no seen one, nor are its font and its template if the source was told to keep them apart.
"""

from data_pipelines.documents.articles import Articles
from data_pipelines.documents.charts import Charts
from data_pipelines.documents.conversations import Conversations
from data_pipelines.documents.lines import Lines
from data_pipelines.documents.negatives import Negatives
from data_pipelines.documents.pages import Pages
from data_pipelines.documents.pdfs import ONE_FILE, Pdfs
from data_pipelines.documents.questions import Ask, Talk
from data_pipelines.documents.shapes import Shapes
from data_pipelines.documents.sides import HELD_OUT
from data_pipelines.documents.small_charts import SmallCharts

# The names that a recipe's `source.kind` can take beside those of `data_pipelines.sources`.
SOURCES: dict[str, type] = {
    "lines": Lines,
    "pages": Pages,
    "articles": Articles,
    "pdfs": Pdfs,
    "charts": Charts,
    "small_charts": SmallCharts,
    "shapes": Shapes,
    "negatives": Negatives,
    "conversations": Conversations,
}
# And its `composer.kind`, beside those of `data_pipelines.sentences`.
COMPOSERS: dict[str, type] = {"ask": Ask, "talk": Talk}

__all__ = [
    "COMPOSERS",
    "HELD_OUT",
    "ONE_FILE",
    "SOURCES",
    "Articles",
    "Ask",
    "Charts",
    "Conversations",
    "Lines",
    "Negatives",
    "Pages",
    "Pdfs",
    "Shapes",
    "SmallCharts",
    "Talk",
]
