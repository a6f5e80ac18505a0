"""Will a flight land more than fifteen minutes late? Asked one hour before it is due to leave."""
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
    columns={
        **dict.fromkeys(["sched_dep", "dep_time", "arr_time"], "time"),
        **dict.fromkeys(["flight", "distance", "arr_delay"], "int"),
    },
    checks=[
        Check.not_null("origin", "carrier", "dest", "sched_dep", severity="critical"),
        Check.between("arr_delay", -120, 1500),
        Check.sql("arr_time > dep_time"),
    ],
)
weather = Table(
    "weather",
    key=["origin", "hour"],
    columns={"hour": "time", **dict.fromkeys(["temp", "humid", "wind_speed", "precip", "pressure", "visib"], "float")},
    checks=[Check.between("wind_speed", 0, 150), Check.between("visib", 0, 10)],
)
planes = Table("planes", key="tailnum", columns={"year": "int", "seats": "int"})

# A delay is a fact of the departure, and known when the plane has landed. `hour` is the beginning of an hour whose last
# observation is made at minute 51: eighty minutes later it is published.
flown = Source("flown", flights, event_time="dep_time", known_at="arr_time", sequence="flight_id")
sky = Source("sky", weather, event_time="hour", delay="80m", sequence="hour")
fleet = Source("fleet", planes)

# features -------------------------------------------------------------------------------------------------------------
origin, carrier, plane = Entity("origin"), Entity("carrier"), Entity("plane", keys=["tailnum"])
delays = [
    agg.mean("arr_delay", over=["6h", "24h", "7d"]),
    agg.share("arr_delay > 15", over=["6h", "24h"]),
    agg.count(over="6h"),
]
origin_delays = FeatureView("origin_delays", origin, flown, delays)
carrier_delays = FeatureView("carrier_delays", carrier, flown, delays)
last_leg = FeatureView("last_leg", plane, flown, [latest("arr_delay", max_age="24h")])
weather_now = FeatureView(
    "weather_now", origin, sky, [latest("wind_speed", "visib", "precip", "pressure", max_age="3h")]
)
airframe = FeatureView("airframe", plane, fleet, [latest("seats", "year")])


@derived
def calendar(sched_dep, dest: str, distance: float):
    """One function for a column of a million rows and for one request."""
    local = sched_dep.to("America/New_York")
    return {"hour": local.hour, "weekday": local.weekday, "dest": dest, "distance": distance}


# learning -------------------------------------------------------------------------------------------------------------
# A flight that never arrived has no arrival delay: its outcome stays unknown, neither late nor on time.
late = Label("late", flights, "arr_delay > 15", known_at="arr_time", matures="24h")

late_arrival = Model(
    "late_arrival",
    label=late,
    decide_at="sched_dep - 1h",
    features=[origin_delays, carrier_delays, last_leg, weather_now, airframe, calendar],
    recipe=Recipe(
        "lightgbm",
        split=TimeSplit(train="2013-01-01/2013-07-01", validate="1 month", test="1 month"),
        params={"min_child_samples": 200, "num_leaves": 15, "num_threads": 1},
    ),
    gates=["beats_ladder", "auc >= 0.65", "calibration_error <= 0.06"],
    owner="ops",
)

# deciding and watching ------------------------------------------------------------------------------------------------
warn_early = Policy(
    "warn_early",
    late_arrival,
    decide={"warn": "score >= 0.4", "ok": "otherwise"},
    rules=[Rule("fog", when="visib < 0.25", then="warn", reason="Visibility under a quarter of a mile")],
    fallback=["previous_version", "rules", "ok"],
    deadline="100ms",
    reasons={
        "last_leg__latest_arr_delay": "Delay of the plane's previous flight: {value:.0f} min",
        "origin_delays__mean_arr_delay_6h": "Mean delay from {origin} over the last 6 h: {value:.0f} min",
        "carrier_delays__mean_arr_delay_6h": "Mean delay of {carrier} over the last 6 h: {value:.0f} min",
    },
)
watch = Monitor(
    warn_early,
    by=["carrier"],
    triggers=[Trigger.retrain(on="psi > 0.25 or auc_drop > 0.05", cooldown="24h", min_labels=1000)],
)
