"""Profiles of the property-based tests: ``pytest tests/properties --hypothesis-profile nightly``
digs deeper.

What failed once is tried first the next time: failing examples are kept in ``.hypothesis/examples``
at the root, which git ignores and CI carries from run to run. An example leaves it once it passes,
so a defect that was found is pinned with ``@example`` beside its property.
"""

from pathlib import Path

from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

# Said outright, because on CI Hypothesis would have neither a database nor randomness.
_EVERYWHERE = settings(
    settings.get_profile("default"),
    deadline=None,
    derandomize=False,
    print_blob=True,
    database=DirectoryBasedExampleDatabase(
        Path(__file__).parents[2] / ".hypothesis" / "examples"
    ),
)

settings.register_profile("quick", _EVERYWHERE, max_examples=50)
settings.register_profile("nightly", _EVERYWHERE, max_examples=20_000)
settings.load_profile("quick")
