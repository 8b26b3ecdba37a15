"""How many slices a table covers."""

import pandas as pd

from pyro_stitchnet.evaluation.coverage import Coverage


def test_slices_are_counted_by_the_reason_that_leaves_them_out() -> None:
    labelled = [True, True, True, False, False]
    manifest = pd.DataFrame({"labelled": labelled, "complete": [True, False, False, False, False]})
    coverage = Coverage.of_slices(manifest, manifest["complete"])
    assert (coverage.scored, coverage.of) == (1, 5)
    said = "1 of 5 slices; left out: 2 without labels, 2 whose masks do not separate the labels"
    assert str(coverage) == said
    assert str(Coverage.of_slices(manifest[:1], manifest["complete"][:1])) == "1 of 1 slices"
