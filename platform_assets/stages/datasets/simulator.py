"""The shipped simulator of hotel bookings: seeded, vectorised, with a scripted drift. Column names and types are the real file's.

The first year of arrivals is history, the year of bookings after it is live. At live booking `drift_after_rows` a mobile channel
takes over, prices jump, and guests begin to cancel for other reasons: a model trained before that day goes wrong, one trained
again recovers. All effects below are invented; only their order of size is taken from hotels.
"""

# ruff: noqa: PLR2004  the numbers are the invention itself: naming each would hide the formulas

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from platform_assets.specs.dataset import SimulatorSource

FIRST_ARRIVAL = datetime(2023, 1, 1)  # noqa: DTZ001  naive UTC, as everywhere here
HISTORY_DAYS = 365
LIVE_DAYS = 365
LAST_LEAD_DAYS = 180
DRIFT_SEGMENT, DRIFT_CHANNEL = "Mobile App", "App"

_SEGMENTS = ("Online TA", "Offline TA/TO", "Groups", "Direct", "Corporate", "Complementary", DRIFT_SEGMENT)
_SEGMENT_SHARES = (0.47, 0.19, 0.13, 0.14, 0.06, 0.01, 0.0)
_MOBILE = len(_SEGMENTS) - 1
_CHANNEL_OF_SEGMENT = np.array([0, 0, 0, 1, 2, 1, 3])
_CHANNELS = ("TA/TO", "Direct", "Corporate", DRIFT_CHANNEL)
_SEGMENT_EFFECT = np.array([0.5, -0.2, 0.7, -0.9, -0.7, -1.2, 0.1])
_SEGMENT_LEAD = np.array([1.0, 1.25, 1.5, 0.6, 0.4, 0.5, 0.25])
_COUNTRIES = ("PRT", "GBR", "FRA", "ESP", "DEU", "ITA", "IRL", "ARE", "SAU", "IND", "USA", "BRA")
_COUNTRY_SHARES = (0.32, 0.12, 0.10, 0.08, 0.07, 0.04, 0.04, 0.07, 0.05, 0.05, 0.04, 0.02)
_COUNTRY_EFFECT = np.array([0.9, -0.4, -0.5, 0.1, -0.8, 0.4, -0.1, 0.2, 0.3, 0.5, -0.3, 0.6])
_ROOMS, _ROOM_SHARES, _ROOM_PRICE = ("A", "D", "E", "F", "G"), (0.70, 0.17, 0.07, 0.04, 0.02), np.array([0.0, 18.0, 30.0, 55.0, 80.0])
_MEALS, _MEAL_SHARES, _MEAL_PRICE = ("BB", "HB", "SC", "FB"), (0.77, 0.13, 0.09, 0.01), np.array([0.0, 22.0, -10.0, 40.0])
_CUSTOMERS, _CUSTOMER_SHARES = ("Transient", "Transient-Party", "Contract", "Group"), (0.75, 0.20, 0.045, 0.005)
_DEPOSITS = ("No Deposit", "Non Refund", "Refundable")
_AGENTS = np.array(["9", "240", "1", "14", "7", "6", "250", "241", "28", "8"])
_REPEAT_SHARE = 0.3


@lru_cache(maxsize=2)
def simulate(source: SimulatorSource) -> pa.Table:
    """Make `history_rows + live_rows` bookings in booking order; the same source gives the same bytes.

    The live rows are exactly those booked after the first arrival plus 365 days.
    """
    rng = np.random.default_rng(source.seed)
    rows = source.history_rows + source.live_rows
    drifted = np.arange(rows) >= source.history_rows + source.drift_after_rows
    booked = np.concatenate(
        [_booking_days(rng, source.history_rows, 0, HISTORY_DAYS + 1), _booking_days(rng, source.live_rows, HISTORY_DAYS + 1, LIVE_DAYS)]
    )
    segment = np.where(drifted & (rng.random(rows) < 0.65), _MOBILE, rng.choice(len(_SEGMENTS), rows, p=_SEGMENT_SHARES))
    lead = np.minimum(rng.lognormal(3.1, 1.0, rows) * _SEGMENT_LEAD[segment], LAST_LEAD_DAYS).astype(np.int64)
    lead[0] = booked[0] = 0  # one arrival on the first day fixes where history ends
    arrival = booked + lead
    guest, country = _guests(rng, rows)
    stay = _stays(rng, rows, arrival)
    price = _prices(rng, arrival=arrival, drifted=drifted, stay=stay)
    deposit = _deposits(rng, segment=segment, country=country, lead=lead)
    chances = _cancellation_chances(
        segment=segment, lead=lead, country=country, deposit=deposit, price=price, arrival=arrival, guest=guest, stay=stay
    )
    canceled = (rng.random(rows) < chances).astype(np.int64)
    kept_before, canceled_before = _past(guest, booked=booked, arrival=arrival, canceled=canceled)
    agent = np.where(segment < 3, rng.choice(len(_AGENTS), rows, p=_shares(len(_AGENTS))), -1)
    return pa.table(
        {
            "booking_id": _numbered(f"S{source.seed}-", np.arange(rows)),
            "guest_id": _numbered("G", guest),
            "guest_email": pc.binary_join_element_wise(_numbered("guest.", guest), "@mail.example", ""),
            "booking_date": _dates(booked),
            "arrival_date": _dates(arrival),
            "hotel": _texts(("City Hotel", "Resort Hotel"), stay["resort"]),
            "is_canceled": canceled,
            "lead_time": lead,
            "stays_in_weekend_nights": stay["weekend"],
            "stays_in_week_nights": stay["week"],
            "adults": stay["adults"],
            "children": pa.array(stay["children"], mask=rng.random(rows) < 0.0005),
            "babies": stay["babies"],
            "meal": _texts(_MEALS, stay["meal"]),
            "country": pa.array(np.array(_COUNTRIES)[country], pa.string(), mask=rng.random(rows) < 0.004),
            "market_segment": _texts(_SEGMENTS, segment),
            "distribution_channel": _texts(_CHANNELS, _CHANNEL_OF_SEGMENT[segment]),
            "is_repeated_guest": (kept_before > 0).astype(np.int64),
            "previous_cancellations": canceled_before,
            "previous_bookings_not_canceled": kept_before,
            "reserved_room_type": _texts(_ROOMS, stay["room"]),
            "deposit_type": _texts(_DEPOSITS, deposit),
            "agent": pa.array(_AGENTS[agent], pa.string(), mask=agent < 0),
            "customer_type": _texts(_CUSTOMERS, stay["customer"]),
            "adr": price,
            "total_of_special_requests": stay["requests"],
        }
    )


def _booking_days(rng: np.random.Generator, rows: int, first_day: int, days: int) -> np.ndarray:
    """Days on which bookings are made, sorted; more before summer than before winter."""
    day = np.arange(first_day, first_day + days)
    weight = 1.0 + 0.35 * np.sin(2 * np.pi * (day - 20) / 365.25)
    return np.sort(rng.choice(day, rows, p=weight / weight.sum()))


def _guests(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Guest and country of every booking; about a third of the bookings are made by guests who book again and again."""
    regulars = max(1, rows // 12)
    regular = rng.random(rows) < _REPEAT_SHARE
    guest = np.where(regular, (regulars * rng.random(rows) ** 1.6).astype(np.int64), regulars + np.arange(rows))
    country_of_guest = rng.choice(len(_COUNTRIES), regulars + rows, p=_COUNTRY_SHARES)
    return guest, country_of_guest[guest]


def _stays(rng: np.random.Generator, rows: int, arrival: np.ndarray) -> dict[str, np.ndarray]:
    summer = np.cos(2 * np.pi * (arrival - 200) / 365.25)
    return {
        "resort": (rng.random(rows) < 0.30 + 0.12 * summer).astype(np.int64),
        "weekend": rng.binomial(4, 0.23, rows),
        "week": rng.poisson(2.4, rows),
        "adults": 1 + rng.binomial(2, 0.43, rows),
        "children": rng.choice([0.0, 1.0, 2.0], rows, p=[0.92, 0.05, 0.03]),
        "babies": (rng.random(rows) < 0.008).astype(np.int64),
        "meal": rng.choice(len(_MEALS), rows, p=_MEAL_SHARES),
        "room": rng.choice(len(_ROOMS), rows, p=_ROOM_SHARES),
        "customer": rng.choice(len(_CUSTOMERS), rows, p=_CUSTOMER_SHARES),
        "requests": rng.binomial(5, 0.16, rows),
    }


def _prices(rng: np.random.Generator, *, arrival: np.ndarray, drifted: np.ndarray, stay: dict[str, np.ndarray]) -> np.ndarray:
    season = 28.0 * np.cos(2 * np.pi * (arrival - 205) / 365.25)
    base = 92.0 + season * (1 + 0.6 * stay["resort"]) + _ROOM_PRICE[stay["room"]] + _MEAL_PRICE[stay["meal"]] + 9.0 * (stay["adults"] - 2)
    shock = np.where(drifted, 1.5, 1.0)
    return np.round(np.maximum(base * shock * rng.lognormal(0.0, 0.22, len(arrival)), 0.0), 2)


def _deposits(rng: np.random.Generator, *, segment: np.ndarray, country: np.ndarray, lead: np.ndarray) -> np.ndarray:
    draw = rng.random(len(segment))
    non_refund = np.select([segment == 2, segment == 1], [0.40, 0.16], 0.03) * (0.5 + (country == 0)) * (0.6 + lead / 120)
    return np.select([draw < np.minimum(non_refund, 0.9), draw > 0.997], [1, 2], 0)


def _cancellation_chances(
    *,
    segment: np.ndarray,
    lead: np.ndarray,
    country: np.ndarray,
    deposit: np.ndarray,
    price: np.ndarray,
    arrival: np.ndarray,
    guest: np.ndarray,
    stay: dict[str, np.ndarray],
) -> np.ndarray:
    """Chance of every booking to be cancelled: long leads, home country, non-refundable groups; on mobile, price and party."""
    reluctance = ((guest * 2654435761) % 1000) / 1000.0 - 0.5  # a lasting habit of the guest, seen only through earlier bookings
    season = np.cos(2 * np.pi * (arrival - 205) / 365.25)
    log_lead = np.log1p(lead) - 3.0
    dear = (price - 105.0) / 40.0
    common = 1.2 * reluctance - 1.1 * (stay["requests"] - 0.8) + _SEGMENT_EFFECT[segment] + 0.5 * (stay["customer"] == 0) - 1.55
    before = (
        common
        + 1.25 * log_lead
        + 1.6 * _COUNTRY_EFFECT[country]
        + 4.0 * (deposit == 1)
        + 0.5 * season * (1 - 2 * stay["resort"])
        + 0.3 * dear
    )
    on_mobile = (
        1.2 * reluctance
        + 1.0 * (stay["requests"] - 0.8)
        - 0.3 * log_lead
        + 0.3 * _COUNTRY_EFFECT[country]
        + 2.2 * (price / 1.5 - 105.0) / 40.0
        + 1.2 * (stay["adults"] - 2)
        + 2.0 * (deposit == 1)
        - 0.6
    )
    return 1.0 / (1.0 + np.exp(-1.15 * np.where(segment == _MOBILE, on_mobile, before)))


def _past(guest: np.ndarray, *, booked: np.ndarray, arrival: np.ndarray, canceled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Earlier stays kept and cancelled, per booking, counting only what was known (arrived) before the day of booking."""
    rows = len(guest)
    day = np.concatenate([arrival, booked])
    asks = np.repeat([0, 1], rows)
    order = np.lexsort((1 - asks, day, np.concatenate([guest, guest])))  # on one day the booking is asked before the arrival is known
    counts = []
    for happened in (1 - canceled, canceled):
        running = np.cumsum(np.concatenate([happened, np.zeros(rows, dtype=np.int64)])[order])
        at = np.empty(2 * rows, dtype=np.int64)
        at[order] = running
        counts.append(at[rows:])
    before_guest = _totals_before(guest, canceled)
    return counts[0] - before_guest[0], counts[1] - before_guest[1]


def _totals_before(guest: np.ndarray, canceled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kept and cancelled bookings of all guests with a smaller number, per booking."""
    kept = np.bincount(guest, weights=1 - canceled)
    lost = np.bincount(guest, weights=canceled)
    return (np.cumsum(kept) - kept)[guest].astype(np.int64), (np.cumsum(lost) - lost)[guest].astype(np.int64)


def _shares(count: int) -> np.ndarray:
    weight = 1.0 / np.arange(1, count + 1)
    return weight / weight.sum()


def _texts(values: tuple[str, ...], index: np.ndarray) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), pa.array(values, pa.string())).cast(pa.string())


def _numbered(prefix: str, numbers: np.ndarray) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers, pa.int64()).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _dates(days: np.ndarray) -> pa.Array:
    first = int((FIRST_ARRIVAL - datetime(1970, 1, 1)) / timedelta(microseconds=1))  # noqa: DTZ001
    return pa.array(first + days * 86_400_000_000, pa.int64()).cast(pa.timestamp("us"))
