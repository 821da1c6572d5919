"""placeholder"""

from dcai_ray.findings import Findings


def write_report(findings: Findings) -> None:
    """x"""
