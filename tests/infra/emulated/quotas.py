"""Service Quotas of EC2, which moto lacks: vCPUs, as an account that asked for a GPU has them."""

from __future__ import annotations

from typing import Any

from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend

QUOTAS = {"L-DB2E81BA": 4, "L-3819A6DF": 0, "L-1216C47A": 32, "L-34B43A08": 32}
"""By code; tests may change them."""


def get_service_quota(
    self: ServiceQuotasBackend, service_code: str, quota_code: str
) -> dict[str, Any]:
    """One quota."""
    if service_code != "ec2" or quota_code not in QUOTAS:
        raise NoSuchResource
    return {"QuotaCode": quota_code, "Value": float(QUOTAS[quota_code])}
