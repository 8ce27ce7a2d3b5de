"""The one table from the paper's clusters to task names.

Values only: nothing is imported, so that any job may read it. Folder
`tasks/<cluster>/` holds one file for each name.

Source: Wei et al., 2022 (arXiv 2109.01652), figure 3.
"""

CLUSTERS: dict[str, tuple[str, ...]] = {
  "natural_language_inference": (
    "anli_r1",
    "anli_r2",
    "anli_r3",
    "cb",
    "mnli_matched",
    "mnli_mismatched",
    "qnli",
    "rte",
    "snli",
    "wnli",
  ),
  "commonsense": ("copa", "hellaswag", "piqa", "story_cloze"),
  "sentiment": ("imdb", "sentiment140", "sst2", "yelp"),
  "paraphrase": ("mrpc", "paws", "qqp", "stsb"),
  "closed_book_qa": (
    "arc_challenge",
    "arc_easy",
    "natural_questions",
    "trivia_qa",
  ),
  "reading_comprehension": (
    "bool_q",
    "drop",
    "multirc",
    "openbookqa",
    "squad_v1",
    "squad_v2",
  ),
  "struct_to_text": ("common_gen", "dart", "e2e_nlg", "web_nlg"),
  "reading_comprehension_commonsense": ("cosmos_qa", "record"),
  "translation": (
    "para_crawl_ende",
    "para_crawl_enes",
    "para_crawl_enfr",
    "wmt16_translate_csen",
    "wmt16_translate_deen",
    "wmt16_translate_fien",
    "wmt16_translate_roen",
    "wmt16_translate_ruen",
    "wmt16_translate_tren",
  ),
  "coreference": ("definite_pronoun_resolution", "winogrande", "wsc273"),
  "misc": ("cola", "coqa", "fix_punct", "math_dataset", "quac", "trec", "wic"),
  "summarization": (
    "aeslc",
    "ag_news",
    "cnn_dailymail",
    "gigaword",
    "multi_news",
    "newsroom",
    "opinion_abstracts_idebate",
    "opinion_abstracts_rotten_tomatoes",
    "samsum",
    "wiki_lingua_english_en",
    "xsum",
  ),
}

# Tasks that the released code has and the paper does not count, by the cluster
# that they would belong to. They are in the split `all_with_extras`; WSC is in
# SuperGLUE's and the ablations' too.
EXTRAS: dict[str, tuple[str, ...]] = {
  "coreference": ("wsc",),
  "translation": ("wmt14_enfr",),
  "closed_book_qa": ("unified_qa_science",),
  "misc": ("lambada", "true_case", "word_segment"),
}

# Tasks without training rows: they are evaluated and never trained on, and
# give no exemplars.
EVALUATION_ONLY: tuple[str, ...] = ("wsc273",)

# What a cluster is called in a mixture's name where that is not its folder.
SHORT_NAMES: dict[str, str] = {"natural_language_inference": "nli"}

# Clusters that are left out of training together with the held-out one:
# paraphrase and NLI ask the same of two sentences, and reading comprehension
# with commonsense belongs to both its halves (Wei et al., section 2.2 and
# appendix). The relation is symmetric.
EXCLUDED_TOGETHER: tuple[tuple[str, str], ...] = (
  ("natural_language_inference", "paraphrase"),
  ("reading_comprehension", "reading_comprehension_commonsense"),
  ("commonsense", "reading_comprehension_commonsense"),
)

# Datasets that the paper counts as one, and that stay together in every split:
# a task's family, for the tasks that have one.
FAMILY_OF: dict[str, str] = {
  "anli_r1": "anli",
  "anli_r2": "anli",
  "anli_r3": "anli",
  "mnli_matched": "mnli",
  "mnli_mismatched": "mnli",
  "arc_challenge": "arc",
  "arc_easy": "arc",
  "squad_v1": "squad",
  "squad_v2": "squad",
  "para_crawl_ende": "translation_ende",
  "wmt16_translate_deen": "translation_ende",
  "para_crawl_enfr": "translation_enfr",
  "wmt14_enfr": "translation_enfr",
}

# SuperGLUE (Wang et al., 2019), a split of the released code.
SUPERGLUE: tuple[str, ...] = (
  "bool_q",
  "cb",
  "copa",
  "multirc",
  "record",
  "rte",
  "wic",
  "wsc",
)

# The clusters that are added one after the other in the paper's figure 6, by
# the paper's names and in its order, and those evaluated there. Reading
# comprehension is without its commonsense half, which resembles what is
# evaluated; conversational QA is a part of "misc"; WSC stands for WSC273, which
# has no training rows. 11, 20, 26, 30, 34, 37 and 39 tasks, as published.
ABLATION_TRAIN: dict[str, tuple[str, ...]] = {
  "summarization": CLUSTERS["summarization"],
  "translation": CLUSTERS["translation"],
  "reading_comprehension": CLUSTERS["reading_comprehension"],
  "sentiment": CLUSTERS["sentiment"],
  "struct_to_text": CLUSTERS["struct_to_text"],
  "coreference": ("definite_pronoun_resolution", "winogrande", "wsc"),
  "conversational_qa": ("coqa", "quac"),
}
ABLATION_EVAL: tuple[str, ...] = (
  "natural_language_inference",
  "commonsense",
  "closed_book_qa",
)

# Tasks of other clusters whose rows were made from a held-out cluster's data,
# which the published splits train on; a strict split does not.
#   reading_comprehension: QNLI pairs SQuAD's questions with SQuAD's sentences.
#     Natural Questions supplies BoolQ's questions, QuAC and CoQA ask about
#     Wikipedia, CNN and other passages in the same way.
#   reading_comprehension_commonsense: ReCoRD's passages are CNN/DailyMail
#     articles.
#   coreference: WNLI's sentences are Winograd schemas.
#   natural_language_inference: WNLI shares its sentences with WSC and WSC273,
#     QNLI its own with SQuAD.
#   sentiment: SST-2 and opinion_abstracts_rotten_tomatoes are reviews of one
#     site.
#   summarization: ReCoRD and CoQA have CNN/DailyMail articles; SST-2 as above.
#   closed_book_qa: BoolQ's questions are Natural Questions'.
#   translation: fix_punct's sentences are ParaCrawl's.
LEAKS: dict[str, tuple[str, ...]] = {
  "reading_comprehension": ("qnli", "natural_questions"),
  "reading_comprehension_commonsense": ("cnn_dailymail",),
  "coreference": ("wnli",),
  "natural_language_inference": ("wsc", "squad_v1", "squad_v2"),
  "sentiment": ("opinion_abstracts_rotten_tomatoes",),
  "summarization": ("record", "coqa", "sst2"),
  "closed_book_qa": ("bool_q",),
  "translation": ("fix_punct",),
}


def cluster_of(task: str) -> str | None:
  """The cluster that lists `task`; None for a task of another project."""
  for cluster, tasks in (*CLUSTERS.items(), *EXTRAS.items()):
    if task in tasks:
      return cluster
  return None
