"""What ``score.py`` of a plain export is made of: its functions are written out as they stand here, as far as needed.

So the reader that leaves is the code that is checked and tested here. Nothing in here may rest on the package but
``_logistic``, whose functions are written out as well; a function named ``open_KIND`` gives the scores of an engine
from its files, ``calibrate_KIND`` answers from scores. Sums have the order of the engines: the bits are the same.
"""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.models._logistic import TINY, logits, sigmoid, sigmoids, softmax

FOLDER = Path(__file__).resolve().parent


def number(value: Any) -> float:
    """Number of a value; NaN where there is none."""
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.lower(), value)
    result = math.nan if value is None else float(value)
    if math.isinf(result):
        raise ValueError("numbers must be finite or missing")
    return result


def encode(inputs: Any, rows: Any) -> Any:
    """Matrix of the rows: numbers, and the place of a category among those of training; NaN: missing or unseen."""
    matrix = np.full((len(rows), len(inputs)), math.nan)
    for at, feature in enumerate(inputs):
        words = feature.get("vocabulary")
        codes = {word: float(code) for code, word in enumerate(words or ())}
        for place, row in enumerate(rows):
            if feature["name"] not in row:
                raise ValueError(f"rows must have the column {feature['name']!r}")
            value = row[feature["name"]]
            if words is None:
                matrix[place, at] = number(value)
            elif words and value is not None:
                text = isinstance(words[0], str)
                if text and not isinstance(value, str):
                    raise ValueError(f"{feature['name']!r} must be text")
                matrix[place, at] = codes.get(value if text else number(value), math.nan)
    return matrix


def read_json(path: Path) -> Any:
    """Content of a file of JSON."""
    return json.loads(path.read_text(encoding="utf-8"))


def open_engine(kind: str, folder: Path) -> Any:
    """Function from a matrix to what the engine gives for it."""
    return globals()[f"open_{kind}"](folder)


def open_lightgbm(folder: Path) -> Any:
    """Trees of LightGBM."""
    import lightgbm

    return lightgbm.Booster(model_file=folder / "trees.txt").predict


def open_lightgbm_levels(folder: Path) -> Any:
    """One forest per quantile, sorted."""
    kinds = read_json(folder / "levels.json")["kinds"]
    members = [open_engine(kind, folder / str(at)) for at, kind in enumerate(kinds)]
    return lambda matrix: np.sort(np.stack([member(matrix) for member in members], axis=1), axis=1)


def open_xgboost(folder: Path) -> Any:
    """Trees of XGBoost."""
    import xgboost

    plan, booster = read_json(folder / "engine.json"), xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray((folder / "trees.ubj").read_bytes()))
    types = ["c" if size else "q" for size in plan["sizes"]]

    def scores(matrix: Any) -> Any:
        rows = xgboost.DMatrix(matrix, feature_types=types, enable_categorical=True, nthread=1)
        values = np.asarray(booster.predict(rows), dtype=np.float64)
        return np.sort(values.reshape(len(matrix), -1), axis=1) if plan["target"]["task"] == "quantile" else values

    return scores


def open_catboost(folder: Path) -> Any:
    """Trees of CatBoost."""
    import catboost

    plan, model = read_json(folder / "engine.json"), catboost.CatBoost()
    model.load_model(blob=(folder / "trees.cbm").read_bytes())
    places, task = plan["categories"], plan["target"]["task"]

    def scores(matrix: Any) -> Any:
        table = matrix.astype(object) if places else matrix
        if places:
            table[:, places] = np.nan_to_num(matrix[:, places], nan=-1.0).astype(np.int64).astype(str)
        pool = catboost.Pool(table, cat_features=places or None)
        raw = np.asarray(model.predict(pool, prediction_type="RawFormulaVal", thread_count=1), dtype=np.float64)
        if task == "multiclass":
            sums = np.full((len(matrix), len(plan["target"]["classes"])), -700.0)
            sums[:, plan["codes"]] = raw
            return np.array([softmax(line) for line in sums.tolist()])
        if task == "count":
            return np.array([float(np.exp(min(value, 700.0))) for value in raw.ravel().tolist()])
        if task == "binary":
            return np.array([sigmoid(value) for value in raw.ravel().tolist()])
        return np.sort(raw.reshape(len(matrix), -1), axis=1)

    return scores


def line(body: Any, matrix: Any) -> Any:
    """Sum of one term per feature; a missing number adds nothing."""
    total = np.full(len(matrix), float(body["intercept"]))
    for term, values in zip(body["terms"], matrix.T, strict=True):
        if "weights" in term:
            count = len(term["weights"])
            places = np.where((values >= 0) & (values < count), values, count).astype(np.intp)
            total += np.array([*term["weights"], term["missing"]])[places]
        else:
            total += np.where(np.isnan(values), 0.0, (values - term["mean"]) / term["scale"] * term["weight"])
    return total


def open_linear(folder: Path) -> Any:
    """Logistic regression."""
    body = read_json(folder / "engine.json")
    return lambda matrix: sigmoids(line(body, matrix))


def open_generalised(folder: Path) -> Any:
    """Sums through a link."""
    body = read_json(folder / "engine.json")

    def scores(matrix: Any) -> Any:
        sums = np.stack([line(part, matrix) for part in body["sums"]], axis=1)
        if body["link"] == "softmax":
            return np.array([softmax(row) for row in sums.tolist()])
        links: Any = {"identity": lambda x: x, "logistic": sigmoid, "exponential": lambda x: math.exp(min(x, 700.0)),
                  "hazard": lambda x: -math.expm1(-math.exp(min(x, 700.0)))}  # fmt: skip
        return np.array([links[body["link"]](value) for value in sums.ravel().tolist()]).reshape(sums.shape)

    return scores


def open_corrected(folder: Path) -> Any:
    """Probabilities of an engine that was fitted on balanced classes, brought back to the shares of life."""
    tree = read_json(folder / "tree.json")
    inner, how = open_engine(tree["engines"][0], folder / "0"), tree["correction"]
    factors = [prior / trained for prior, trained in zip(how["prior"], how["trained"], strict=True)]

    def scores(matrix: Any) -> Any:
        rates = inner(matrix)
        if rates.ndim == 1:
            yes = rates * factors[1]
            return yes / (yes + (1.0 - rates) * factors[0])
        columns = [rates[:, place] * factor for place, factor in enumerate(factors)]
        total = sum(columns[1:], start=columns[0])
        return np.column_stack([column / total for column in columns])

    return scores


def open_sklearn(folder: Path) -> Any:
    """Objects of scikit-learn, read by skops: nothing is unpickled."""
    import skops.io

    how, limit = read_json(folder / "engine.json"), float(np.finfo(np.float32).max)
    trusted = read_json(folder / "trusted.json")
    models = skops.io.loads((folder / "models.skops").read_bytes(), trusted=trusted)
    task, margins = how["target"]["task"], how["method"] == "decision_function"

    def table(matrix: Any) -> Any:
        if how["columns"] is None:
            return matrix
        import pandas as pd

        series = {}
        for (name, words), values in zip(how["columns"], matrix.T, strict=True):
            texts = np.empty(len(words) + 1, dtype=object)
            texts[:-1], texts[-1] = words, np.nan
            places = np.where((values >= 0) & (values < len(words)), values, len(words)).astype(np.intp)
            series[name] = pd.Series(texts[places], dtype=object) if words else pd.Series(values)
        return pd.DataFrame(series)

    def scores(matrix: Any) -> Any:
        with np.errstate(all="ignore"):
            rows = table(np.clip(matrix, -limit, limit))
            values = [np.asarray(getattr(model, how["method"])(rows), np.float64) for model in models]
        values = [value[:, None] if value.ndim == 1 else value for value in values]
        if task == "quantile":
            return np.sort(np.hstack(values), axis=1)
        if task == "multiclass":
            out = np.zeros((len(matrix), len(how["target"]["classes"])))
            shares = np.array([softmax(row) for row in values[0].tolist()]) if margins else values[0]
            out[:, [int(code) for code in models[0].classes_]] = shares
            return out
        last = np.ascontiguousarray(values[0][:, -1])
        if task == "binary" and margins:
            return sigmoids(last)
        return np.maximum(last, 0.0) if task == "count" else last

    return scores


def calibrate(how: Any, scores: Any) -> Any:
    """Answers from what the engine gives."""
    return globals()[f"calibrate_{how['kind']}"](how, scores)


def calibrate_unchanged(how: Any, scores: Any) -> Any:
    """The same."""
    del how
    return scores


def total(columns: Any) -> Any:
    """Sum of each row, column by column."""
    return sum(columns.T[1:], start=columns[:, 0].copy())


def calibrate_none(how: Any, scores: Any) -> Any:
    """The same but for what is nearest to 0 and 1."""
    least = how.get("least", 0.0)
    raised = np.where(scores < least, 0.5 * (least + scores), scores)
    if scores.ndim == 1:
        rest = 1.0 - scores
        return np.clip(np.where(rest < least, 1.0 - 0.5 * (least + rest), raised), TINY, 1.0 - TINY)
    return np.where(np.any(scores < least, axis=1, keepdims=True), raised / total(raised)[:, None], scores)


def calibrate_sigmoid(how: Any, scores: Any) -> Any:
    """Logistic function of the log-odds, moved and stretched."""
    odds = logits(scores)
    if how.get("limit") is not None:
        odds = np.clip(odds, -how["limit"], how["limit"])
    return np.clip(sigmoids(odds * how["slope"] + how["intercept"]), TINY, 1.0 - TINY)


def calibrate_isotonic(how: Any, scores: Any) -> Any:
    """Straight lines between knots, level outside of them."""
    x, y = np.array(how["scores"], dtype=float), np.array(how["rates"], dtype=float)
    with np.errstate(all="ignore"):
        slopes = np.append(np.diff(y) / np.diff(x), 0.0)
        at = np.maximum(np.searchsorted(x, scores, side="right") - 1, 0)
        steps = np.maximum(scores - x[at], 0.0)
        lines = np.where(steps > 0.0, slopes[at] * steps, 0.0)
    return np.minimum(y[at] + lines, np.append(y[1:], y[-1])[at])


def calibrate_temperature(how: Any, scores: Any) -> Any:
    """Probabilities to a power, brought back to a sum of 1."""
    powers = np.exp(np.log(np.clip(scores, TINY, 1.0)) / how["temperature"])
    result, least = powers / total(powers)[:, None], how.get("least", 0.0)
    return least + (1.0 - least * scores.shape[1]) * result if least else result


def calibrate_one_vs_rest(how: Any, scores: Any) -> Any:
    """Each class by itself, then brought back to a sum of 1."""
    rates = np.stack([calibrate(part, column) for part, column in zip(how["classes"], scores.T, strict=True)], axis=1)
    return rates / total(rates)[:, None]


def calibrate_spanned(how: Any, scores: Any) -> Any:
    """Answers, and beside them an interval or a set of classes that is to hold the outcome."""
    answers = calibrate(how["inner"], scores)
    answers = answers if answers.ndim == 2 else answers[:, None]
    if how["task"] == "multiclass":
        spans = answers >= how["radius"]
        spans[np.arange(len(answers)), answers.argmax(axis=1)] = True
        return np.hstack([answers, spans.astype(np.float64)])
    low, high = answers[:, 0] - how["radius"], answers[:, -1] + how["radius"]
    low = np.maximum(low, 0.0) if how["task"] == "count" else low
    return np.hstack([answers, np.column_stack([np.minimum(low, high), np.maximum(low, high)])])


def open_model() -> Any:
    """Function from rows, mappings of feature to value (None: missing), to answers of shape (n, outputs)."""
    plan = read_json(FOLDER / "model.json")
    engine = open_engine(plan["engine"], FOLDER / "engine")

    def score(rows: Any) -> Any:
        if not rows:
            return np.empty((0, len(plan["outputs"])))
        raw = np.asarray(engine(encode(plan["inputs"], rows)), dtype=np.float64)
        raw = raw[:, 0] if raw.ndim == 2 and raw.shape[1] == 1 else raw
        return np.asarray(calibrate(plan["calibrator"], raw)).reshape(len(rows), -1)

    return score


def main(arguments: list[str]) -> int:
    """Score the rows of a CSV file, where an empty cell is a missing value; or ``--check``."""
    if len(arguments) != 1:
        print("usage: python score.py ROWS.csv | --check", file=sys.stderr)
        return 2
    score, plan = open_model(), read_json(FOLDER / "model.json")
    if arguments == ["--check"]:
        examples = read_json(FOLDER / "examples.json")
        answers, expected = score(examples["rows"]), np.array(examples["scores"])
        same = np.allclose(answers, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
        print(f"{len(expected)} rows, at most {np.abs(answers - expected).max():.3g} apart")
        return 0 if same else 1
    with Path(arguments[0]).open(newline="", encoding="utf-8-sig") as file:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    lines = [map(repr, answers) for answers in score(rows).tolist()]
    csv.writer(sys.stdout, lineterminator="\n").writerows([plan["outputs"], *lines])
    return 0
