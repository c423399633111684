"""Reads metrics from standard input with the parser of the Prometheus project, which is strict, and prints them as JSON:
each family's type, and its samples as [name, labels, value]."""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    samples = [[sample.name, sample.labels, sample.value] for sample in family.samples]
    assert family.documentation, family.name
    families[family.name] = {"type": family.type, "samples": samples}
print(json.dumps(families))
