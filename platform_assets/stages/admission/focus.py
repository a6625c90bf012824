"""The ledger as FOCUS 1.2, the FinOps Foundation's columns for cost and usage: https://focus.finops.org/focus-specification/v1-2/.

Every column that the standard makes mandatory, those of its conditional ones that this ledger can fill, and its own as `x_...`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable
from datetime import UTC, datetime

from platform_assets.specs.spending import CURRENCY, HOUR_SECONDS, NOBODY, Entry, Month

COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
    "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd", "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit",
    "ContractedCost", "ContractedUnitPrice", "EffectiveCost", "InvoiceIssuerName", "ListCost", "ListUnitPrice", "PricingCategory",
    "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName", "ResourceId", "ResourceName",
    "ResourceType", "ServiceCategory", "ServiceName", "SkuId", "SkuPriceId", "SubAccountId", "SubAccountName", "Tags",
    "x_CpuSeconds", "x_GpuSeconds", "x_Outcome",
)  # fmt: skip
_US = "Falaj"
_ACCOUNT = "falaj"


def write_focus(entries: Iterable[Entry]) -> str:
    """Return the entries as CSV, one row each, with a header; an absent value is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(entry) for entry in entries)
    return text.getvalue()


def _row(entry: Entry) -> dict[str, str]:
    month = Month.of(entry.began)
    hours = entry.asked.nodes * entry.wall_seconds / HOUR_SECONDS
    cost, price = _number(entry.price_aed), _number(entry.asked.price_aed_per_hour)
    tags = {"falaj/run": entry.run_id, "falaj/model": entry.model, "falaj/stage": entry.stage}
    return {
        "BilledCost": cost, "EffectiveCost": cost, "ListCost": cost, "ContractedCost": cost,
        "ListUnitPrice": price, "ContractedUnitPrice": price,
        "PricingQuantity": _number(hours), "PricingUnit": "Hours", "ConsumedQuantity": _number(hours), "ConsumedUnit": "Hours",
        "BillingAccountId": _ACCOUNT, "BillingAccountName": _US, "BillingCurrency": CURRENCY,
        "BillingPeriodStart": _moment(month.begins.timestamp()), "BillingPeriodEnd": _moment(month.next.begins.timestamp()),
        "ChargePeriodStart": _moment(math.floor(entry.began)), "ChargePeriodEnd": _moment(math.floor(entry.began + entry.wall_seconds) + 1),
        "ChargeCategory": "Usage", "ChargeClass": "", "ChargeFrequency": "Usage-Based", "PricingCategory": "Standard",
        "ChargeDescription": f"{entry.stage} of {entry.model} on {entry.asked.profile}",
        "InvoiceIssuerName": _US, "ProviderName": _US, "PublisherName": _US,
        "RegionId": entry.asked.region, "RegionName": entry.asked.region,
        "ResourceId": f"{entry.model}/{entry.stage}", "ResourceName": entry.model, "ResourceType": entry.stage,
        "ServiceCategory": "AI and Machine Learning", "ServiceName": _US,
        "SkuId": entry.asked.profile, "SkuPriceId": f"{entry.asked.profile}@{price}",
        "SubAccountId": entry.tenant, "SubAccountName": entry.tenant if entry.tenant != NOBODY else "",
        "Tags": json.dumps(tags, sort_keys=True),
        "x_CpuSeconds": _number(entry.cpu_seconds), "x_GpuSeconds": _number(entry.gpu_seconds), "x_Outcome": entry.outcome,
    }  # fmt: skip


def _number(value: float) -> str:
    return repr(round(value, 12))


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, tz=UTC):%Y-%m-%dT%H:%M:%SZ}"
