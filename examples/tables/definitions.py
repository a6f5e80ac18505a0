"""Three tables without a history, one task each: a yes or no, one of three classes, a number."""

from retrodict import (
    Balance,
    Encode,
    Impute,
    Label,
    Model,
    Policy,
    RandomSplit,
    Recipe,
    Rule,
    Scale,
    Stack,
    Table,
    Threshold,
    columns,
)

# German credit (Hofmann 1994, UCI, CC BY 4.0): 300 of 1,000 loans went bad; a bad one costs five times a lost good one.
credit = Table(
    "credit",
    key="id",
    columns=dict.fromkeys(["months", "amount", "rate", "residence", "age", "credits", "dependants"], "int"),
)
default = Model(
    "default",
    label=Label("bad", credit, "outcome = 'bad'"),
    features=[columns(exclude=[])],
    recipe=Recipe(
        "logistic",
        RandomSplit(seed=7),
        prepare=[Impute("median"), Encode("onehot"), Scale("standard")],
        balance=Balance("over"),
        threshold=Threshold.cost(false_positive=1, false_negative=5),
    ),
    gates=["auc >= 0.7", "leaks = 0"],
)
lend = Policy(
    "lend",
    default,
    decide={"review": "score >= threshold", "lend": "otherwise"},
    fallback=["review"],
    deadline="5s",
    rules=[Rule("large", when="amount > 15000", then="review", reason="Over 15,000 marks")],
)

# Wine (Forina 1991, UCI, CC BY 4.0): three cultivars by thirteen measurements.
MEASURES = [
    "alcohol",
    "malic_acid",
    "ash",
    "alcalinity_of_ash",
    "magnesium",
    "total_phenols",
    "flavanoids",
    "nonflavanoid_phenols",
    "proanthocyanins",
    "color_intensity",
    "hue",
    "od_ratio",
    "proline",
]
wine = Table("wine", key="id", columns=dict.fromkeys(MEASURES, "float"))
cultivar = Model(
    "cultivar",
    label=Label("cultivar", wine, "cultivar"),
    features=[columns(exclude=[])],
    recipe=Recipe("random_forest", RandomSplit(seed=7), interval=0.9),
    gates=["accuracy >= 0.85"],
)
sort = Policy("sort", cultivar, decide={"barolo": "p['barolo'] >= 0.8", "taste": "otherwise"}, deadline="5s")

# Diamonds (Wickham 2016, ggplot2, MIT): every eighteenth of 53,940 stones.
diamonds = Table(
    "diamonds", key="id", columns=dict.fromkeys(["carat", "depth", "table", "price", "x", "y", "z"], "float")
)
price = Model(
    "price",
    label=Label("price", diamonds, "price"),
    features=[columns(exclude=[])],
    recipe=Recipe(Stack(["lightgbm", "ridge"]), RandomSplit(seed=7), interval=0.9),
    gates=["r2 >= 0.9", "beats_ladder"],
)
offer = Policy(
    "offer", price, decide={"expert": "high - low > 5000 or value > 10000", "offer": "otherwise"}, deadline="5s"
)
