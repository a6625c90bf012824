"""The FOCUS export holds the standard's mandatory columns, types, allowed values and sums."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from platform_assets.specs.spending import NOBODY, Asked, Entry
from platform_assets.stages.admission.focus import COLUMNS, write_focus

# The columns of feature level Mandatory in FOCUS 1.2, and which of them may be null: focus.finops.org/focus-specification/v1-2/
MANDATORY = {
    "BilledCost": "decimal", "BillingAccountId": "text", "BillingAccountName": "text", "BillingCurrency": "text", "BillingPeriodEnd": "time",
    "BillingPeriodStart": "time", "ChargeCategory": "text", "ChargeClass": "null", "ChargeDescription": "text", "ChargePeriodEnd": "time",
    "ChargePeriodStart": "time", "ContractedCost": "decimal", "EffectiveCost": "decimal", "InvoiceIssuerName": "text", "ListCost": "decimal",
    "PricingQuantity": "decimal", "PricingUnit": "text", "ProviderName": "text", "PublisherName": "text", "ServiceCategory": "text",
    "ServiceName": "text",
}  # fmt: skip
BEGAN = datetime(2026, 12, 31, 23, 30, tzinfo=UTC).timestamp()
ASKED = Asked("gpu-small", "uae-north", price_aed_per_hour=14.5, nodes=2, gpus=2)
ENTRIES = [
    Entry("run-1", "hospitality", "hotel_cancellations", "model/trained", ASKED, BEGAN + 0.25, 5400.5, 9000.0, "done"),
    Entry("run-2", NOBODY, "hotel_bookings", "dataset/ingested", Asked("local"), BEGAN, 0.01, 0.01, "failed"),
]


@pytest.fixture
def rows():
    return list(csv.DictReader(io.StringIO(write_focus(ENTRIES))))


def test_every_mandatory_column_is_there_with_a_value_of_its_type(rows):
    assert list(rows[0]) == list(COLUMNS)
    for row in rows:
        for column, kind in MANDATORY.items():
            if kind == "decimal":
                assert float(row[column]) >= 0
            elif kind == "time":
                datetime.strptime(row[column], "%Y-%m-%dT%H:%M:%SZ")
            else:
                assert bool(row[column]) == (kind == "text"), column


def test_columns_beyond_the_standard_are_marked_as_such():
    standard = {column for column in COLUMNS if not column.startswith("x_")}
    assert set(MANDATORY) <= standard
    assert {column for column in COLUMNS if column.startswith("x_")} == {"x_CpuSeconds", "x_GpuSeconds", "x_Outcome"}
    assert all(column[0].isupper() and column.isalnum() for column in standard)


def test_allowed_values_are_the_standards(rows):
    for row in rows:
        assert (row["ChargeCategory"], row["BillingCurrency"], row["PricingUnit"]) == ("Usage", "AED", "Hours")
        assert (row["ServiceCategory"], row["ChargeFrequency"], row["PricingCategory"]) == (
            "AI and Machine Learning",
            "Usage-Based",
            "Standard",
        )


def test_quantity_times_unit_price_is_the_cost(rows):
    for row, entry in zip(rows, ENTRIES, strict=True):
        assert float(row["PricingQuantity"]) * float(row["ContractedUnitPrice"]) == pytest.approx(float(row["ContractedCost"]))
        assert float(row["BilledCost"]) == pytest.approx(entry.price_aed)
        assert float(row["ListCost"]) == float(row["EffectiveCost"]) == float(row["BilledCost"])


def test_the_period_of_a_charge_holds_it_and_its_bill_is_that_of_the_month_it_began_in(rows):
    row = rows[0]
    assert (row["ChargePeriodStart"], row["ChargePeriodEnd"]) == ("2026-12-31T23:30:00Z", "2027-01-01T01:00:01Z")
    assert (row["BillingPeriodStart"], row["BillingPeriodEnd"]) == ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    assert rows[1]["ChargePeriodStart"] < rows[1]["ChargePeriodEnd"]


def test_tenant_model_profile_and_run_can_be_told(rows):
    row = rows[0]
    assert (row["SubAccountId"], row["ResourceName"], row["SkuId"], row["RegionId"]) == (
        "hospitality", "hotel_cancellations", "gpu-small", "uae-north",
    )  # fmt: skip
    assert json.loads(row["Tags"])["falaj/run"] == "run-1"
    assert float(row["x_GpuSeconds"]) == pytest.approx(2 * 5400.5)
    assert rows[1]["SubAccountId"] == ""
