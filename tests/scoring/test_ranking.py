"""How a probability ranks cases: by hand, and as scikit-learn has it."""

import numpy as np
import pytest
from sklearn import metrics as sk

from scoring.ranking import ranking


def test_by_hand_equal_probabilities_come_together():
    ranked = ranking(np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1]))
    fall_out, hits = ranked.roc
    assert fall_out.tolist() == [0, 0, 0.5, 1] and hits.tolist() == [0, 0.5, 1, 1]
    assert ranked.area == 7 / 8  # of four pairs three are in order, and one is a draw
    assert ranked.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


@pytest.mark.parametrize("digits", [1, 12], ids=["many alike", "none alike"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_same_as_scikit_learn_s(digits, kind):
    random = np.random.default_rng(digits)
    for count in (2, 3, 20, 200):
        is_it = np.arange(count) % 3 == 0
        said = np.round(0.3 * is_it + random.random(count), digits).astype(kind)
        ranked = ranking(is_it, said)
        assert ranked.area == pytest.approx(sk.roc_auc_score(is_it, said), abs=1e-12)
        assert ranked.average_precision == pytest.approx(sk.average_precision_score(is_it, said), abs=1e-12)
        fall_out, hits, _ = sk.roc_curve(is_it, said, drop_intermediate=False)
        assert np.allclose(ranked.roc, (fall_out, hits))
