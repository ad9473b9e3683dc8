"""Every analysis says whether it compares models and whether it looks at the chosen images only."""

from vitexp.analysis.amplitude import Amplitude
from vitexp.analysis.distance import Distance
from vitexp.analysis.heads import HeadSimilarity
from vitexp.analysis.profile import Profiled
from vitexp.analysis.rollout import Rollout
from vitexp.analysis.similarity import Similarity
from vitexp.analysis.taylor import Taylor
from vitexp.analysis.transfer import Transfer

EVERY = {Amplitude, Distance, HeadSimilarity, Profiled, Rollout, Similarity, Taylor, Transfer}


def test_who_compares_and_who_samples() -> None:
    """Rollout's pictures, shares of time and plans of pruning are of one model; transfer tests on all images."""
    assert {analysis for analysis in EVERY if not analysis.compares} == {Profiled, Rollout, Taylor}
    assert {analysis for analysis in EVERY if not analysis.samples} == {Transfer}
