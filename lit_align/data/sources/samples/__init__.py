"""Preference pairs and rated answers of what models wrote: the files of ``lit-align sample``, and a source for each way to choose."""

from lit_align.data.sources.samples.best_of import BestOfSamples
from lit_align.data.sources.samples.rated import RatedSamples
from lit_align.data.sources.samples.rejected import RejectedSamples
from lit_align.data.sources.samples.right_and_wrong import RightAndWrong

__all__ = ["BestOfSamples", "RatedSamples", "RejectedSamples", "RightAndWrong"]
