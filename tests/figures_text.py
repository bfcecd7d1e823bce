"""Figures as a scraper gets them, read by prometheus_client's own parser."""

import re
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


class Figures:
    """One scrape.

    Args:
        text: as it came.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    @property
    def names(self) -> set[str]:
        """The name of every series."""
        return {sample.name for sample in self._samples}

    def get(self, name: str, **labels: str) -> float:
        """The sum of the series that have these labels; 0 where there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def scrape(address: str, key: str = "", **options: Any) -> Figures:
    """Read the figures as Prometheus does."""
    request = urllib.request.Request(address)
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=60, **options) as response:
        return Figures(response.read().decode())


def find_address(log: str) -> str:
    """Where a server's figures are, as its log says."""
    match = re.search(r'"event": "metrics".*?"address": "([^"]+)"', log)
    assert match is not None, log
    return match.group(1)
