

# rollout --------------------------------------------------------------------------------------------------------------
FLIGHT = ["tailnum", "sched_dep"]
late_briefly = Model(  # another model, on other features
    "late_briefly",
    label=late,
    decide_at="sched_dep - 1h",
    features=[last_leg, origin_delays, calendar],
    recipe=Recipe("logistic", split=late_arrival.recipe.split),
)
brief = Policy("brief", late_briefly, decide={"warn": "score >= 0.4", "ok": "otherwise"}, fallback=["ok"])
calm = Policy("calm", late_arrival, decide={"warn": "score >= 0.5", "ok": "otherwise"}, fallback=["ok"])
careful = Rollout(
    "careful",
    warn_early,
    steps=[20, 50, 100],
    bake="10d",
    unit=FLIGHT,
    hold=["error_rate <= champion * 1.1", "mean_score within 0.005 for each carrier"],
    prove=["rate(warn) within 0.06", "brier not worse by 0.02"],
    inconclusive="wait 40d then pause",
)

# experiments ----------------------------------------------------------------------------------------------------------
landed_late = Metric.rate("landed late", "label = 1", better="lower")
twice = Experiment(
    "twice", warn_early, {"control": 50, "same": 50}, unit=FLIGHT, primary=landed_late, mde=0.03, same=True
)
phone = Experiment("phone", warn_early, {"control": 50, "phoned": 50}, unit=FLIGHT, primary=landed_late, mde=0.03)
