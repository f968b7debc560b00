"""Make the generated blocks of the documentation anew: ``python -m tests.docs``."""

from __future__ import annotations

import sys

from tests.docs.pages import ROOT, rendered, stale

for page in stale():
    page.write_text(rendered(page.read_text("utf-8")), "utf-8")
    sys.stdout.write(f"{page.relative_to(ROOT)}: made anew\n")
