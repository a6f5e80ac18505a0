"""In how many days a subscription is cancelled."""

from retrodict import Label, Model, Monitor, Policy, Recipe, Table, TimeSplit, columns

subscriptions = Table(
    "subscriptions",
    key="id",
    columns={"started": "time", "seats": "int", "tickets": "int", "cancelled_at": "time", "moved_at": "time"},
)
churn = Label("churn", subscriptions, "cancelled_at", horizons=["30d", "90d", "180d"], until="moved_at")
model = Model(
    "churn",
    label=churn,
    decide_at="started",
    features=[columns("plan", "seats", "tickets")],
    recipe=Recipe(
        "cox",
        TimeSplit("2024-01-01/2024-08-01", validate="2 months", test="2 months"),
        baseline_group="plan",
    ),
    gates=["beats_ladder", "c_index >= 0.65", "brier_90d <= 0.2", "calibration_error_90d <= 0.08"],
)
keep = Policy("keep", model, decide={"call": 'event_by["90d"] >= 0.5', "wait": "otherwise"}, deadline="5s")
watch = Monitor(keep, by=["plan"])
