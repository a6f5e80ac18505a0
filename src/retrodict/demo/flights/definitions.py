"""Will a flight arrive more than fifteen minutes late? Asked one hour before it is due to leave New York."""

# mypy: allow-untyped-defs, allow-incomplete-defs

from retrodict import (
    Check,
    Entity,
    FeatureView,
    Label,
    Model,
    Monitor,
    Policy,
    Recipe,
    Rule,
    Source,
    Table,
    TimeSplit,
    Trigger,
    agg,
    derived,
    latest,
)

# data -----------------------------------------------------------------------------------------------------------------
flights = Table(
    "flights",
    key="flight_id",
    checks=[
        Check.not_null("origin", "carrier", "dest", "sched_dep", severity="critical"),
        Check.in_set("origin", {"EWR", "JFK", "LGA"}, severity="high"),
        Check.between("distance", 1, 6000, severity="high"),
        Check.between("arr_delay", -120, 1500),
        Check.sql("arr_time > dep_time"),
        Check.not_null("tailnum", severity="low"),
        Check.not_null("arr_delay", severity="low"),
    ],
)
weather = Table(
    "weather",
    key=["origin", "hour"],
    checks=[
        Check.in_set("origin", {"EWR", "JFK", "LGA"}, severity="high"),
        Check.between("wind_speed", 0, 150),
        Check.between("temp", -40, 130),
        Check.between("visib", 0, 10),
    ],
)
planes = Table("planes", key="tailnum", checks=[Check.between("year", 1930, 2013), Check.between("seats", 1, 900)])

# A delay happens when the flight leaves and is known once it has landed. The weather file says the beginning of the
# hour in which an observation was made, the last of them at minute 51: it is known eighty minutes after that.
flown = Source("flown", flights, event_time="dep_time", known_at="arr_time", sequence="flight_id")
sky = Source("sky", weather, event_time="hour", delay="80m", sequence="hour")
fleet = Source("fleet", planes)

# features -------------------------------------------------------------------------------------------------------------
origin, carrier, plane = Entity("origin"), Entity("carrier"), Entity("plane", keys=["tailnum"])
delays = [
    agg.mean("arr_delay", over=["2h", "24h", "7d"]),
    agg.share("arr_delay > 15", over=["2h", "24h", "7d"]),
    agg.count(over=["2h", "24h", "7d"]),
]
origin_delays = FeatureView("origin_delays", origin, flown, delays)
carrier_delays = FeatureView("carrier_delays", carrier, flown, delays)
last_leg = FeatureView("last_leg", plane, flown, [latest("arr_delay", "dep_delay", max_age="24h")])
weather_now = FeatureView(
    "weather_now",
    origin,
    sky,
    [latest("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib", max_age="3h")],
)
airframe = FeatureView("airframe", plane, fleet, [latest("seats", "year")])


@derived
def calendar(sched_dep):
    """Departure by the clock of New York."""
    local = sched_dep.to("America/New_York")
    return {"hour": local.hour, "minute": local.minute, "weekday": local.weekday}


@derived
def itinerary(carrier: str, dest: str, distance: float):
    """What the ticket says."""
    return {"carrier": carrier, "dest": dest, "distance": distance}


@derived
def plane_age(sched_dep, airframe__latest_year):
    """Years since the plane was built."""
    return {"years": sched_dep.year - airframe__latest_year}


# learning -------------------------------------------------------------------------------------------------------------
# A cancelled or diverted flight has no arrival delay: its outcome is unknown for good, neither "on time" nor "late".
late = Label("late", flights, "arr_delay > 15", known_at="arr_time", matures="24h")

late_arrival = Model(
    "late_arrival",
    label=late,
    decide_at="sched_dep - 1h",
    features=[origin_delays, carrier_delays, last_leg, weather_now, airframe, calendar, itinerary, plane_age],
    recipe=Recipe(
        "lightgbm",
        params={"learning_rate": 0.1, "early_stopping_round": 30, "num_threads": 1},
        calibrate="isotonic",
        split=TimeSplit(train="2013-01-01/2013-07-01", validate="1 month", test="1 month"),
        baseline_group="itinerary__carrier",
    ),
    gates=["beats_ladder", "auc >= 0.65"],
    owner="ops-ml",
)

# deciding and watching ------------------------------------------------------------------------------------------------
warn_early = Policy(
    "warn_early",
    late_arrival,
    decide={"warn": "score >= 0.4", "ok": "otherwise"},
    rules=[Rule("fog", when="visib < 0.25", then="warn", reason="Visibility under a quarter mile")],
    fallback=["previous_version", "rules", "ok"],
    deadline="250ms",
    reasons={
        "origin_delays__mean_arr_delay_2h": "{origin} arrivals {value:.0f} min late over the last 2 h",
        "carrier_delays__mean_arr_delay_2h": "{carrier} arrivals {value:.0f} min late over the last 2 h",
        "last_leg__latest_arr_delay": "previous leg of {tailnum} {value:.0f} min late",
        "calendar__hour": "departure in hour {value:.0f}",
        "weather_now__latest_wind_speed": "wind of {value:.0f} mph at {origin}",
    },
)
watch = Monitor(
    warn_early,
    by=["carrier"],
    triggers=[
        Trigger.retrain(on="psi > 0.25 or auc_drop > 0.05 or calibration_error > 0.05", cooldown="24h", min_labels=5000)
    ],
)
