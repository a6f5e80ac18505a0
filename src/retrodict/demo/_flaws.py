"""The flaws of the flights data as a table: a name, and the query that counts it.

Names are ``table.flaw``. A check that finds nothing stays in the table: its zero is a result too. Times are compared
as microseconds, since time zone functions of the database live in an extension.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from retrodict.stores.sql import connect_duckdb

__all__ = ["count_flaws", "count_labels", "count_labels_by_month"]

_FLIGHTS = {
    "rows": "FROM flights",
    "id_repeated": "FROM (SELECT flight_id FROM flights GROUP BY ALL HAVING count(*) > 1)",
    "day_carrier_number_repeated": "FROM (SELECT month, day, carrier, flight FROM raw_flights GROUP BY ALL "
    "HAVING count(*) > 1)",
    # flights that have no arrival
    "no_arrival_delay": "FROM flights WHERE arr_delay IS NULL",
    "cancelled": "FROM flights WHERE cancelled",
    "diverted": "FROM flights WHERE diverted",
    "diverted_with_arrival_time": "FROM flights WHERE diverted AND arr_time IS NOT NULL",
    "diverted_without_arrival_time": "FROM flights WHERE diverted AND arr_time IS NULL",
    "arrival_delay_without_air_time": "FROM flights WHERE (arr_delay IS NULL) <> (air_time IS NULL)",
    # local times
    "dep_time_is_2400": "FROM raw_flights WHERE dep_time = 2400",
    "arr_time_is_2400": "FROM raw_flights WHERE arr_time = 2400",
    "sched_dep_disagrees_with_time_hour": "FROM audit_flights WHERE sched_dep_differs",
    "dep_time_disagrees_with_delay": "FROM audit_flights WHERE dep_differs",
    "arr_time_disagrees_with_delay": "FROM audit_flights WHERE arr_differs",
    "departed_on_another_date": "FROM audit_flights WHERE left_other_day",
    "arrived_on_another_date": "FROM audit_flights WHERE landed_other_day",
    "local_time_exists_twice": "FROM audit_flights WHERE twice > 0",
    "local_time_does_not_exist": "FROM audit_flights WHERE skipped > 0",
    "arrived_before_departure": "FROM flights WHERE arr_time <= dep_time",
    "shorter_than_its_air_time": "FROM flights WHERE {flown} < air_time",
    "over_four_hours_on_the_ground": "FROM flights WHERE {flown} - air_time > 240",
    # planes, places
    "dest_not_in_airports": "FROM flights ANTI JOIN airports ON dest = faa",
    "dests_not_in_airports": "FROM (SELECT DISTINCT dest FROM flights ANTI JOIN airports ON dest = faa)",
    "carrier_not_in_airlines": "FROM flights ANTI JOIN airlines USING (carrier)",
    "no_tailnum_but_departed": "FROM flights WHERE tailnum IS NULL AND NOT cancelled",
    "tailnum_not_in_planes": "FROM flights ANTI JOIN planes USING (tailnum) WHERE tailnum IS NOT NULL",
    "tailnums_not_in_planes": "FROM (SELECT DISTINCT tailnum FROM flights ANTI JOIN planes USING (tailnum) "
    "WHERE tailnum IS NOT NULL)",
    "tailnums_of_several_carriers": "FROM (SELECT tailnum FROM flights WHERE tailnum IS NOT NULL GROUP BY ALL "
    "HAVING count(DISTINCT carrier) > 1)",
    "left_before_its_plane_arrived": "FROM (SELECT arr_time, lead(dep_time) OVER (PARTITION BY tailnum "
    "ORDER BY dep_time, flight_id) AS next FROM flights WHERE tailnum IS NOT NULL AND dep_time IS NOT NULL "
    "AND arr_time IS NOT NULL) WHERE next < arr_time",
    "flown_by_a_plane_under_20_seats": "FROM flights JOIN planes USING (tailnum) WHERE seats < 20",
    "without_weather_of_its_hour": "FROM raw_flights ANTI JOIN raw_weather USING (origin, time_hour)",
    # implausible values, kept
    "faster_than_600_mph": "FROM flights WHERE distance / (air_time / 60) > 600",
    "scheduled_an_hour_off_its_route": "FROM (SELECT {planned} - median({planned}) OVER (PARTITION BY origin, dest) "
    "AS off FROM flights) WHERE abs(off) > 60",
    "routes_of_two_distances": "FROM (SELECT origin, dest FROM flights GROUP BY ALL "
    "HAVING count(DISTINCT distance) > 1)",
    "between_new_york_airports": "FROM flights WHERE dest IN (SELECT origin FROM flights)",
}

_WEATHER = {
    "rows": "FROM weather",
    "hour_repeated": "FROM (SELECT origin, hour FROM weather GROUP BY ALL HAVING count(*) > 1)",
    "local_hour_repeated": "FROM (SELECT origin, month, day, hour FROM raw_weather GROUP BY ALL HAVING count(*) > 1)",
    "time_hour_disagrees_with_local": "FROM audit_weather WHERE hour_differs",
    # The year in New York, from midnight to midnight, is 05:00 to 05:00 UTC.
    "hours_missing": "FROM (SELECT DISTINCT origin FROM weather) CROSS JOIN range("
    "epoch_us(TIMESTAMP '2013-01-01 05:00:00'), epoch_us(TIMESTAMP '2014-01-01 05:00:00'), 3600000000) AS due(instant) "
    "ANTI JOIN (SELECT origin, epoch_us(hour) AS instant FROM weather) USING (origin, instant)",
    "hours_missing_since_30_december_19h": "FROM (SELECT DISTINCT origin FROM weather) CROSS JOIN range("
    "epoch_us(TIMESTAMP '2013-12-31 00:00:00'), epoch_us(TIMESTAMP '2014-01-01 05:00:00'), 3600000000) AS due(instant) "
    "ANTI JOIN (SELECT origin, epoch_us(hour) AS instant FROM weather) USING (origin, instant)",
    "wind_over_150_mph": "FROM weather WHERE wind_speed > 150",
    "gust_below_wind": "FROM weather WHERE wind_gust < wind_speed",
    "dew_point_above_temperature": "FROM weather WHERE dewp > temp",
    "temperature_30_degrees_off_both_neighbours": "FROM (SELECT temp - lag(temp) OVER o AS rise, "
    "temp - lead(temp) OVER o AS fall FROM weather WINDOW o AS (PARTITION BY origin ORDER BY hour)) "
    "WHERE least(abs(rise), abs(fall)) > 30",
}

_PLANES = {
    "rows": "FROM planes",
    "tailnum_repeated": "FROM (SELECT tailnum FROM planes GROUP BY ALL HAVING count(*) > 1)",
    "built_before_1940": "FROM planes WHERE year < 1940",
    "built_before_1973": "FROM planes WHERE year < 1973",
    "built_after_2013": "FROM planes WHERE year > 2013",
    "under_20_seats": "FROM planes WHERE seats < 20",
    "over_400_seats": "FROM planes WHERE seats > 400",
    "single_engine_or_rotorcraft": "FROM planes WHERE type <> 'Fixed wing multi engine'",
    "never_flew": "FROM planes ANTI JOIN flights USING (tailnum)",
}

_AIRPORTS = {
    "rows": "FROM airports",
    "code_repeated": "FROM (SELECT faa FROM airports GROUP BY ALL HAVING count(*) > 1)",
    "longitude_east": "FROM airports WHERE lon > 0 AND faa <> 'SYA'",
    "zone_in_asia": "FROM airports WHERE tzone LIKE 'Asia/%'",
    "zone_wrong_for_a_destination": "FROM (SELECT dest, median({flown} - air_time) AS ground FROM flights "
    "WHERE arr_delay IS NOT NULL GROUP BY dest) WHERE ground NOT BETWEEN 15 AND 45",
    "backslash_in_name": "FROM airports WHERE contains(name, chr(92))",
}

_AIRLINES = {"rows": "FROM airlines", "code_repeated": "FROM (SELECT carrier FROM airlines GROUP BY ALL "
             "HAVING count(*) > 1)"}  # fmt: skip

_QUERIES = {"flights": _FLIGHTS, "weather": _WEATHER, "planes": _PLANES, "airports": _AIRPORTS, "airlines": _AIRLINES}

_MINUTES = {
    "{flown}": "((epoch_us(arr_time) - epoch_us(dep_time)) / 60000000)",
    "{planned}": "((epoch_us(sched_arr) - epoch_us(sched_dep)) / 60000000)",
}

_LABELS = """
    SELECT {key} count(*) AS flights, count(arr_delay) AS evaluable, count(*) FILTER (arr_delay > $late) AS late,
           count(*) FILTER (cancelled) AS cancelled, count(*) FILTER (diverted) AS diverted,
           late / evaluable AS late_rate
    FROM flights {group}
"""


def count_flaws(
    files: Mapping[str, pa.Table], tables: Mapping[str, pa.Table], audit: Mapping[str, pa.Table]
) -> dict[str, int]:
    """Run every query of the table, and count the nulls of every prepared column that has any."""
    counts: dict[str, int] = {}
    with connect_duckdb() as engine:
        for prefix, group in (("raw_", files), ("", tables), ("audit_", audit)):
            for name, table in group.items():
                engine.register(prefix + name, table)
        for name, queries in _QUERIES.items():
            counts |= {f"{name}.{flaw}": _count(engine, query) for flaw, query in queries.items()}
            nulls = {column: tables[name][column].null_count for column in tables[name].column_names}
            counts |= {f"{name}.{column}.null": count for column, count in nulls.items() if count}
    return counts


def count_labels(flights: pa.Table, late_after: int) -> dict[str, float]:
    """Count labels, and give the late rate under four rules."""
    counts: dict[str, float] = _labels(flights, late_after).to_pylist()[0]
    late, everything, cancelled = counts["late"], counts["flights"], counts["cancelled"]
    return counts | {
        "late_rate_if_cancelled_late": (late + cancelled) / (counts["evaluable"] + cancelled),
        "late_rate_if_cancelled_or_diverted_late": (late + cancelled + counts["diverted"]) / everything,
        "late_rate_if_neither_late": late / everything,
    }


def count_labels_by_month(flights: pa.Table, late_after: int) -> pa.Table:
    """Count labels per month of the scheduled departure, which the flight id begins with."""
    return _labels(flights, late_after, by="CAST(flight_id[6:7] AS INTEGER) AS month")


def _labels(flights: pa.Table, late_after: int, by: str = "") -> pa.Table:
    query = _LABELS.format(key=by + "," if by else "", group="GROUP BY month ORDER BY month" if by else "")
    with connect_duckdb() as engine:
        engine.register("flights", flights)
        counts: pa.Table = engine.sql(query, params={"late": late_after}).to_arrow_table()
    return counts


def _count(engine: Any, query: str) -> int:
    for short, expression in _MINUTES.items():
        query = query.replace(short, expression)
    return int(engine.execute("SELECT count(*) " + query).fetchone()[0])
