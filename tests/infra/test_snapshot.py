"""The default template, whole: a change that nobody meant shows in review.

``pytest tests/infra --snapshot-update`` writes it anew.
"""

import json
import re

from conftest import Template
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension


def test_the_whole_template(template: Template, snapshot: SnapshotAssertion) -> None:
    """Hashes of content masked: they change with every line of code."""
    whole = {key: value for key, value in template.items() if key != "Folder"}
    text = json.dumps(whole, sort_keys=True)
    text = re.sub(r"[0-9a-f]{64}", "HASH", text)
    text = re.sub(r"(ChatHostInstance[0-9A-F]{8})[0-9a-f]{16}", r"\1HASH", text)
    assert json.loads(text) == snapshot(extension_class=JSONSnapshotExtension)
