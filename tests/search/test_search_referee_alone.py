"""scikit-learn's own tests of its searches, with ours in their place, without a cluster: every one passes."""

from __future__ import annotations

import pytest
from search_referee import HALVING, SEARCH, own_tests

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
globals().update({f"{name}_of_search": test for name, test in own_tests(SEARCH).items()})
globals().update({f"{name}_of_halving": test for name, test in own_tests(HALVING).items()})
