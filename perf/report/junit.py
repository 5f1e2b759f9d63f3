"""The checks of a verdict as JUnit XML, which CI systems show as tests.

One testcase for each check of the candidate: a broken limit is a failure, an inconclusive one is
skipped. Source: the schema of Jenkins' xUnit plugin, which GitLab and others read too.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from trimton.perf.report.document import RunDocument
from trimton.perf.verdict import Check

# Outcome -> the element in its testcase; a pass has none.
_ELEMENTS = {"fail": "failure", "inconclusive": "skipped"}


def render_junit(document: RunDocument) -> str:
    """The XML document, as text."""
    verdict = document.verdict
    checks = [c for v in verdict.variants if v.variant == verdict.candidate for c in v.checks]
    counts = {
        "tests": len(checks),
        "failures": sum(check.outcome == "fail" for check in checks),
        "errors": 0,
        "skipped": sum(check.outcome == "inconclusive" for check in checks),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    suites = ET.Element("testsuites", {"name": "trimton", **numbers})
    about = {
        "name": _plain(f"{verdict.model}: {verdict.candidate}"),
        "timestamp": verdict.created.split("+")[0],
        "time": "0",
    }
    suite = ET.SubElement(suites, "testsuite", about | numbers)
    for check in checks:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_plain(f"{verdict.model}.{verdict.candidate}"),
            name=_plain(f"{check.metric} {check.rule} {check.limit:g}"),
            time="0",
        )
        if check.outcome in _ELEMENTS:
            said = ET.SubElement(case, _ELEMENTS[check.outcome], message=_plain(check_text(check)))
            said.text = _plain(check.why)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def check_text(check: Check) -> str:
    """One line: what was observed, what was asked, and why that is the outcome."""
    observed, unit = check.observed, check.unit
    if not check.samples:
        figure = "not observed"
    elif observed.low is None or observed.high is None:
        figure = f"{observed.value:.4g} {unit}"
    else:
        figure = f"{observed.value:.4g} {unit} [{observed.low:.4g}, {observed.high:.4g}]"
    asked = f"{check.rule} {check.limit:g} {unit}".rstrip()
    return f"{check.metric}: {figure}, asked: {asked}; {check.why}"


def _plain(text: str) -> str:
    """``text`` without the characters that XML 1.0 cannot hold."""
    return "".join(c for c in text if c.isprintable() or c in "\t\n")
