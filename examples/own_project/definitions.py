"""Will an invoice be paid more than a week late? Decided on the day it is written."""

from retrodict import Check, Entity, FeatureView, Label, Model, Monitor, Policy, Recipe, Source, Table, TimeSplit
from retrodict import agg, derived, latest

invoices = Table("invoices", key="id", columns={
    "issued": "time", "paid": "time", "amount": "float", "terms_days": "int", "days_late": "float"},
    checks=[Check.between("amount", 0, 100_000), Check.sql("paid > issued")])

# How late an invoice was is known once it is paid: before that no feature may see it.
payments = Source("payments", invoices, event_time="issued", known_at="paid", sequence="id")
habits = FeatureView("habits", Entity("customer"), payments, [
    agg.mean("days_late", over=["60d", "180d"]), agg.count(over="180d"), latest("days_late", max_age="90d")])


@derived
def terms(amount, terms_days):
    return {"amount": amount, "terms_days": terms_days}


late = Label("late", invoices, "days_late > 7", known_at="paid", matures="60d")
late_payer = Model("late_payer", label=late, decide_at="issued", features=[habits, terms],
                   recipe=Recipe("logistic", TimeSplit("2024-01-01/2024-08-01", validate="2 months", test="2 months")),
                   gates=["auc >= 0.6"])
remind = Policy("remind", late_payer, decide={"call": "score >= 0.5", "wait": "otherwise"}, fallback=["wait"])
watch = Monitor(remind)
