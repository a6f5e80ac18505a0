"""``project.features``: what the features are, that they are right, their values, and the online state that serves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from retrodict.core.clock import to_micros
from retrodict.core.display import Block, Grid, Listing, short_hash
from retrodict.core.errors import DefinitionError, InputError, check_known
from retrodict.core.lazy import lazy_modules
from retrodict.decisions.definitions import find_policy
from retrodict.features.definitions import FeatureService, FeatureView
from retrodict.features.derived import Derived
from retrodict.features.plan import FeatureSet
from retrodict.models.definitions import Model
from retrodict.project.arguments import Time, instant
from retrodict.project.feature_frames import FeatureNames, FrameOptions, FrameRequest, frames_in_order, named_features
from retrodict.project.feature_reports import (
    DerivedDetails,
    FeatureChanges,
    FeatureParity,
    FeatureSummary,
    ServiceDetails,
    Verification,
    ViewDetails,
    summarise,
)
from retrodict.project.frame_reports import FrameGrowth, FrameOrigin, frame_state
from retrodict.project.namespace import Namespace
from retrodict.project.online_reports import STATUS, OnlineBuild, OnlineValues, StreamReport, status_row
from retrodict.project.user_rows import UserRows

if TYPE_CHECKING:
    import pyarrow as pa

    from retrodict import serving
    from retrodict.data import versions
    from retrodict.decisions import log, parity
    from retrodict.features import catalogue, online
    from retrodict.features.catalogue import changes
    from retrodict.features.definitions import Entity
    from retrodict.features.feast import ImportedFeatures
    from retrodict.features.labels import Outcome
    from retrodict.features.offline import files, kept_frame, texts
    from retrodict.features.offline.kept_frame import KeptFrame
    from retrodict.features.online.read import heat
    from retrodict.features.operations import erasure, online_values, pushed_events, status
    from retrodict.features.operations.erasure_report import Erasure
    from retrodict.features.operations.pushed_events import PushedEvents
    from retrodict.features.operations.status import ViewStatus
    from retrodict.features.verify import Report, verdicts
    from retrodict.learning import frame as training
    from retrodict.models import readers
    from retrodict.monitoring import decision_table
    from retrodict.registry import feature_sets
else:
    catalogue, online = lazy_modules("retrodict.features", "catalogue", "online")
    (changes,) = lazy_modules("retrodict.features.catalogue", "changes")
    (readers,) = lazy_modules("retrodict.models", "readers")
    erasure, online_values, pushed_events, status = lazy_modules(
        "retrodict.features.operations", "erasure", "online_values", "pushed_events", "status"
    )
    (decision_table,) = lazy_modules("retrodict.monitoring", "decision_table")
    (feature_sets,) = lazy_modules("retrodict.registry", "feature_sets")
    files, kept_frame, texts = lazy_modules("retrodict.features.offline", "files", "kept_frame", "texts")
    (heat,) = lazy_modules("retrodict.features.online.read", "heat")
    log, parity = lazy_modules("retrodict.decisions", "log", "parity")
    (serving,) = lazy_modules("retrodict", "serving")
    (training,) = lazy_modules("retrodict.learning", "frame")
    (verdicts,) = lazy_modules("retrodict.features.verify", "verdicts")
    (versions,) = lazy_modules("retrodict.data", "versions")

__all__ = ["Features"]


class Features(Namespace):
    """Features of a project.

    Examples
    --------
    >>> frame = project.features.frame(requests, ["origin_delays", "sky.wind_speed"], at="asked_at")  # doctest: +SKIP
    >>> project.features.verify("late_arrival").ok  # doctest: +SKIP
    True
    """

    # what they are ----------------------------------------------------------------------------------------------------

    def list(
        self, *, search: str | None = None, owner: str | None = None, tag: str | None = None
    ) -> Listing[FeatureSummary]:
        """List the defined views, derived functions and services with what they read.

        Parameters
        ----------
        search : str, optional
            Words that all occur: names, description, tags, source, columns.
        owner : str, optional
            Only views and services of this owner.
        tag : str, optional
            Only views and services with this tag.
        """
        defined = [*readers.defined_features(self._workspace), *readers.defined_services(self._workspace)]
        matching = catalogue.search(defined, search, owner=owner, tag=tag)
        summaries = [summarise(self._workspace, feature) for feature in matching]

        def blocks() -> Sequence[Block | None]:
            if not summaries:
                return ["Nothing fits." if defined else "No view is defined yet."]
            rows = [
                (s.name, s.kind, short_hash(s.version), s.reads, s.source, len(s.features), s.owner) for s in summaries
            ]
            names = [(s.name if not place else "", name) for s in summaries for place, name in enumerate(s.features)]
            columns = ("name", "kind", "version?", "reads", "source", "features>", "owner?")
            return [Grid(columns, rows), Grid(("", "feature"), names)]

        return Listing("features", summaries, blocks)

    def show(self, name: str) -> ViewDetails | DerivedDetails | ServiceDetails:
        """Show a service, a view or a feature of it: definition, columns read, models, verdict.

        Parameters
        ----------
        name : str
            ``view``, ``view.feature``, or the name of a derived function or of a service.
        """
        first, _, feature = name.partition("." if "." in name else "__")
        definitions = [*readers.defined_features(self._workspace), *readers.defined_services(self._workspace)]
        defined = {definition.name: definition for definition in definitions}
        rule = "the view, derived function or service must be defined"
        check_known(first, defined, rule, where="definitions", what="view")
        definition = defined[first]
        if isinstance(definition, FeatureService):
            return ServiceDetails(self._workspace, definition)
        if isinstance(definition, Derived):
            return DerivedDetails(self._workspace, definition)
        return ViewDetails(self._workspace, definition, feature or None)

    def plan(self) -> FeatureChanges:
        """Show how the defined features differ from what is deployed, and what that costs.

        Changes nothing. Exit code 1 if a view that a deciding model reads was changed without a new name, or if a table
        lacks what a view reads. Models in force keep the code they were trained with: old and new serve side by side.
        """
        tables, defined = self._workspace.tables, readers.defined_features(self._workspace)
        problems = []
        for feature in defined:
            if isinstance(feature, FeatureView):
                try:
                    catalogue.check_sources(self._workspace, FeatureSet([feature]))
                except DefinitionError as error:
                    problems.append(str(error))
        names = {feature.source.table.name for feature in defined if isinstance(feature, FeatureView)}
        rows = {name: sum(file.rows for file in tables.files(name)) for name in names if tables.history(name)}
        differences = changes.compare(defined, feature_sets.readers_in_force(self._workspace), rows)
        return FeatureChanges(differences, problems, heat.slow_features(self._workspace, defined))

    # that they are right ----------------------------------------------------------------------------------------------

    def verify(
        self,
        model: str | None = None,
        *,
        samples: int = 50,
        seed: int = 0,
        show_keys: bool = False,
        decisions: str | None = None,
    ) -> Verification:
        """Prove that training, serving, the stream and a naive oracle see the same values.

        The ledger keeps the verdict on every view as it is now; without a pass no model that reads it is deployed. Exit
        code 1 if one value differs, or if there was nothing to compare.

        Parameters
        ----------
        model : str, optional
            Only the features of this model or service.
        samples : int
            Random requests, and as many on the edges of each view.
        seed : int
            Which are drawn.
        show_keys : bool
            Show the keys of requests that differ, not digests of them.
        decisions : str, optional
            Also recompute every feature value of this policy's logged decisions.
        """
        services = {service.name: service for service in readers.defined_services(self._workspace)}
        defined = [*(definition.name for definition in self._workspace.definitions.of(Model)), *services]
        rule = "the project must define this model or service"
        names = defined if model is None else [check_known(model, defined, rule, where="definitions", what="model")]
        reports, views = {}, {}
        with self._project.progress("verify") as progress:
            for place, name in enumerate(names):
                progress(f"verify {name}", place, len(names))
                if name in services:
                    features = catalogue.service_features(services[name])[0]
                    verified = verdicts.verify_service(self._workspace, name, features, samples=samples, seed=seed)
                else:
                    verified = self._verify_model(name, samples, seed)
                reports[name], views[name] = verified
            log = None if decisions is None else parity.check_parity(self._workspace, decisions)
        return Verification(reports, views, log, show_keys=show_keys)

    def _verify_model(self, name: str, samples: int, seed: int) -> tuple[Report, dict[str, bool]]:
        """Verify the features of a model on the rows it learns from, and record the verdict."""
        model = self._workspace.definitions.get(Model, name)
        tables = self._workspace.tables
        catalogue.check_sources(self._workspace, FeatureSet(model.features))
        versions = catalogue.newest_versions(tables, training.tables_of(model), where=f"model {name}")
        rows = tables.read(model.label.table.name, versions[model.label.table.name])
        features = training.features_of(model, rows.schema)
        spine = training.read_spine(rows, model, features)
        return verdicts.verify_features(
            self._workspace, features, spine, training.AT, versions, samples=samples, seed=seed
        )

    def parity(self, policy: str, *, start: Time | None = None, end: Time | None = None) -> FeatureParity:
        """Recompute every feature value of logged decisions from the tables and compare.

        Exit code 1 if one value differs, or if there was no decision to compare.

        Parameters
        ----------
        policy : str
            Whose decisions.
        start : Time, optional
            Only decisions from this time on.
        end : Time, optional
            Only decisions before this time.
        """
        find_policy(self._workspace.definitions, policy)  # the error for an unknown name has near ones
        first, after = instant(start, "start"), instant(end, "end")
        with self._project.progress(f"parity of {policy}"):
            return FeatureParity(policy, parity.check_parity(self._workspace, policy, start=first, end=after))

    def status(self) -> Listing[ViewStatus]:
        """Show how each view serves: verified, lag, staleness, state size, nulls, unseen keys.

        Of every version that a model in force, a defined model or a service reads. Null rates are those of recent
        decisions; unseen keys are the share of their keys that online state holds no events of.
        """
        workspace = self._workspace
        views = status.feature_status(
            workspace,
            feature_sets.readers_in_force(workspace),
            readers.feature_sets(workspace),
            readers.service_sets(workspace),
            log.recent_decisions(workspace),
        )
        empty = "No model reads a view, nor does a service: none serves."
        return Listing.table("views", views, STATUS, status_row, empty=empty)

    # their values -----------------------------------------------------------------------------------------------------

    def frame(  # noqa: PLR0913  # one parameter per option of the command
        self,
        spine: Any,
        features: FeatureNames,
        *,
        at: str,
        outcomes: str | Outcome | Sequence[str | Outcome] | None = None,
        as_of: Time | None = None,
        keep: str | None = None,
        anew: bool = False,
        output: str | Path | None = None,
        engine: Literal["local", "spark"] = "local",
        master: str | None = None,
    ) -> Any:
        """Add features to rows of a file or table, each as it could have been known at its time.

        Reads the newest versions of the tables, through sorted indexes that the next call finds. Rows out are the rows
        in, in the same order. A kept frame is a table with its origin in the ledger; the same command again goes on
        where a killed one stopped, and computes what the spine got since.

        Parameters
        ----------
        spine : path, str or data frame
            Keys, time, whatever derived features need: CSV, Parquet, or a table, as TABLE[@REF].
        features : str, FeatureView, Derived, FeatureService, or a sequence of these
            view.feature, or a view or service for all of its features; commas between them.
        at : str
            Column with the time of each row.
        outcomes : str, Outcome, or a sequence of these, optional
            Add what happened afterwards, by these outcomes; commas between them.
        as_of : Time, optional
            Outcomes that matured by then.  [default: the newest fact of their sources]
        keep : str, optional
            Keep features as this table, which grows: only new rows of the spine are computed.
        anew : bool
            If the kept frame was made from something else: make a new version of it.
        output : path, optional
            Where the rows go: a .csv or .parquet file.
        engine : {"local", "spark"}
            What computes it; the values are the same.
        master : str, optional
            Spark's master, like spark://host:7077.  [default: local[*]]

        Returns
        -------
        data frame or FrameReport
            A frame of the kind that ``spine`` is (pandas, Polars, Arrow, a relation of DuckDB; Arrow for a path or
            table), its rows with the features appended. With ``keep`` or ``output`` the rows go there, a bounded number
            at a time, and a report comes back.

        Examples
        --------
        >>> project.features.frame(requests, "origin_delays", at="asked_at")  # doctest: +SKIP
        """
        options = FrameOptions(outcomes, instant(as_of, "as_of"), keep, anew, output, engine, master)
        request = FrameRequest.read(self._workspace, features, at, options)
        rows, goes_elsewhere = UserRows(spine, "spine"), keep is not None or output is not None
        source = rows.read(request.inputs, request.added, every_column=goes_elsewhere)
        table, report = request.compute(self._project, source)
        if table is None:
            return report
        return table if rows.columns is None else rows.append(table.select(request.added))

    def extend(
        self, *names: str, engine: Literal["local", "spark"] = "local", master: str | None = None
    ) -> Listing[FrameGrowth]:
        """Bring kept frames up to the newest rows of the tables that are their spines.

        All of them, or those named; a frame that reads another one comes after it. A frame that was made from a file
        grows by `features offline` with the longer file.

        Parameters
        ----------
        names : str
            Kept frames; all by default.
        engine : {"local", "spark"}
            What computes it; the values are the same.
        master : str, optional
            Spark's master, like spark://host:7077.  [default: local[*]]
        """
        growths = []
        for frame in frames_in_order(self._workspace, names):
            options = FrameOptions(keep=frame.name, engine=engine, master=master)
            request = FrameRequest.read(self._workspace, frame.origin["columns"], frame.origin["at"], options)
            _, report = request.compute(self._project, f"dataset:{frame.spine_table}")
            growths += [] if report.growth is None else [report.growth]

        def blocks() -> Sequence[Block | None]:
            lines = [block for growth in growths for block in growth.blocks()]
            return lines or ["No frame of a table is kept: there is nothing to extend."]

        return Listing("frames", growths, blocks)

    @overload
    def frames(self) -> Listing[KeptFrame]: ...
    @overload
    def frames(self, name: str | None) -> Listing[KeptFrame] | FrameOrigin: ...
    def frames(self, name: str | None = None) -> Listing[KeptFrame] | FrameOrigin:
        """List the kept training frames, or show one: spine, features, table versions, with hashes.

        Their rows are shown by `data show`, their versions by `data history`.

        Parameters
        ----------
        name : str, optional
            Show this one.
        """
        if name is not None:
            return FrameOrigin(self._workspace, kept_frame.find_frame(self._workspace, name))
        frames = kept_frame.kept_frames(self._workspace)

        def row(f: KeptFrame) -> tuple[object, ...]:
            spine, features = f.origin["spine"]["origin"], len(f.origin["columns"])
            return f.name, f.version, f.rows, spine, f.origin["at"], features, frame_state(f)

        columns = ("name", "version>", "rows>", "spine", "at?", "features>", "state")
        empty = "No frame is kept yet: retrodict features offline --keep NAME"
        return Listing.table("frames", frames, columns, row, empty=empty)

    def online(
        self,
        keys: Any,
        features: FeatureNames,
        at: Time | None = None,
        *,
        output: str | Path | None = None,
    ) -> OnlineValues:
        """Read features of keys from online state, as a server would at that time.

        A value that online state cannot tell is null, and the answer counts why by view: no_state, unseen,
        beyond_horizon …; behind, where rows of the table or events of the stream are not in yet. In Python the rows
        with their values are its ``frame``.

        Parameters
        ----------
        keys : path or data frame
            CSV or Parquet: entity keys, request values.
        features : str, FeatureView, Derived, FeatureService, or a sequence of these
            view.feature, or a view or service for all of its features; commas between them.
        at : Time, optional
            Time of the requests.  [default: now]
        output : path, optional
            Where the rows go: a .csv or .parquet file.
        """
        path = None if output is None else files.check_output(Path(output))
        moment = instant(at, "at")
        moment = self._workspace.clock.now() if moment is None else moment
        feature_set, columns = catalogue.select(*named_features(self._workspace, features))
        rows = UserRows(keys, "keys")
        inputs = [*feature_set.request_keys, *feature_set.request_columns]
        table = rows.read_table(inputs, columns, every_column=path is not None)
        with self._project.progress("online features") as progress:
            table, statuses = online_values.add_online_values(
                self._workspace, feature_set, columns, table, moment, where=rows.where, progress=progress
            )
        added = table.select(columns)
        if path is not None:
            files.write_rows(table, path)
        frame = table if rows.columns is None else rows.append(added)
        return OnlineValues(frame, added, moment, statuses, path)

    # the online state that serves them --------------------------------------------------------------------------------

    def build(self) -> OnlineBuild:
        """Fill the online state of all models and services from the newest table versions.

        Doing it again changes nothing: every event is recognised. Memory is bounded, whatever the size of the tables; a
        build that was killed goes on where it was.
        """
        workspace = self._workspace
        with self._project.progress("build") as progress:
            sets = [*readers.feature_sets(workspace).values(), *readers.service_sets(workspace).values()]
            sources = online.build_online(workspace, sets, progress=progress)
        slow = heat.slow_features(workspace, readers.defined_features(workspace)) if sources else []
        tables = {source.table.name for features in sets for source in features.sources.values()}
        return OnlineBuild(sources, slow, sorted(table for table in tables if not workspace.tables.history(table)))

    def stream(
        self,
        *,
        parent: int | None = None,
        once: bool = False,
        processes: int | None = None,
        partition: Sequence[int] | None = None,
        code: str | None = None,
    ) -> StreamReport:
        """Keep the online state of services and of what is deployed current, until Ctrl-C.

        Applies the events of the streams as they arrive, and follows every change of a deployment. `serve` starts one.
        State that is cut into partitions (features.partitions) can be fed by several processes, here or on many
        machines.

        Parameters
        ----------
        parent : int, optional
            End when this process has ended.
        once : bool
            Apply what is in the streams now, and end.
        processes : int, optional
            Share the partitions among so many processes.
        partition : sequence of int, optional
            Feed only this partition; may be repeated.  [default: all]
        code : str, optional
            Services as this code object has them.  [default: the module]
        """
        return StreamReport(
            serving.consume(
                self._workspace,
                parent=parent,
                once=once,
                partitions=partition or None,
                processes=processes,
                code=code,
            )
        )

    @staticmethod
    def import_feast(file: str | Path) -> ImportedFeatures:
        """Read what `feast registry-dump` printed, and write its entities, views and services as definitions.

        Parameters
        ----------
        file : path
            JSON.
        """
        from retrodict.features.feast import read_registry

        return read_registry(Path(file))

    def push(self, source: str, events: Any) -> PushedEvents:
        """Append the events of a file to the stream of a source's table.

        Rows that are no event of the table are refused, one by one, and the others are taken; exit code 1 if one was
        refused. The same events again change nothing if the source declares a sequence.

        Parameters
        ----------
        source : str
            A source that a view reads.
        events : path or data frame
            CSV or Parquet, one row per event of the source's table.
        """
        views = readers.defined_views(self._workspace)
        sources = {view.source.name: view.source for view in views}
        check_known(source, sources, "a view must read the source", where="definitions", what="source")
        rows = UserRows(events, "events")
        table = rows.read_table(every_column=True)
        with self._project.progress(f"push {source}"):
            return pushed_events.push_events(self._workspace, sources[source], views, table, where=rows.where)

    def erase(
        self,
        entity: str,
        keys: Any = None,
        *,
        key: Sequence[str] | None = None,
        reason: str = "erasure",
        vacuum: bool = False,
        pinned: bool = False,
        yes: bool = False,
    ) -> Erasure:
        """Remove subjects from the newest table versions and from online state.

        Only says what would be done, unless --yes is given. Older versions of the tables, streams and logs are not
        rewritten: the answer says what remains where. The ledger keeps a keyed digest of each subject, never the key.

        Parameters
        ----------
        entity : str
            Whose keys they are.
        keys : path or data frame, optional
            CSV or Parquet with the key columns; "-": CSV from stdin.
        key : sequence of str, optional
            One subject, once per key column; stays in the shell's history.
        reason : str
            Why, for the ledger.
        vacuum : bool
            Then delete older versions of the tables that nothing keeps.
        pinned : bool
            Also take the rows out of the older versions that runs, frames and tags keep, for the reason given: replays
            of what was made from them repeat it. Legal holds stay.
        yes : bool
            Do it. Without, only say what would be done.
        """
        key = (key,) if isinstance(key, str) else key  # one of one column, in Python
        workspace, views = self._workspace, readers.defined_views(self._workspace)
        entities = {view.entity.name: view.entity for view in views if view.entity}
        check_known(entity, entities, "a view must be about the entity", where="definitions", what="entity")
        subjects = self._subjects(entities[entity], keys, key or ())
        names = {view.request_keys for view in views if view.key_columns == entities[entity].keys}
        decided = decision_table.about_subjects(names, _key_tuples(subjects, entities[entity]))
        more = {decision_table.TABLE: (("entities",), decided)}
        with self._project.progress(f"erase {entity}"):
            report = erasure.erase(
                workspace, entities[entity], subjects, self._stateful(),
                dry_run=not yes, reason=reason, vacuum=vacuum, pinned=pinned,
                more=more if workspace.tables.history(decision_table.TABLE) else {},
            )  # fmt: skip
            decisions = log.count_decisions(workspace, names, _key_tuples(subjects, entities[entity]))
            if decisions:
                report.remaining["decision log"] = decisions
        return report

    def _subjects(self, entity: Entity, keys: Any, key: Sequence[str]) -> pa.Table:
        """Keys of the subjects, of the types that the tables have."""
        import pyarrow as pa

        if (keys is None) == (not key):
            raise InputError("subjects must be named by keys or by key", where=f"entity {entity.name!r}",
                             got="none or both", remedy="Pass --keys FILE, or --key once per key column")  # fmt: skip
        if keys is not None:
            user_rows = UserRows(keys, "keys")
            rows, where = user_rows.read_table(entity.keys), user_rows.where
        elif len(key) != len(entity.keys):
            columns = f"has {len(entity.keys)} key columns: {', '.join(entity.keys)}"
            raise InputError(f"a subject must have a value per key column; the entity {columns}",
                             where=f"entity {entity.name!r}", got=f"{len(key)} values",
                             remedy="Pass --key once per key column, in that order")  # fmt: skip
        else:
            rows, where = pa.table({name: [value] for name, value in zip(entity.keys, key, strict=True)}), "key"
        for name in entity.keys:
            check_known(name, rows.column_names, "subjects must have the entity's keys", where=where, what="column")
        for view in readers.defined_views(self._workspace):
            table = view.source.table.name
            if view.key_columns == entity.keys and self._workspace.tables.history(table):
                schema = self._workspace.tables.schema(table)
                types = {name: schema.field(name).type for name in entity.keys if name in schema.names}
                return texts.parse_texts(rows, types, where=where)
        return rows

    def _stateful(self) -> Sequence[FeatureSet]:
        """What is defined and what is in force: everything that may have online state."""
        defined = [FeatureSet([view]) for view in readers.defined_views(self._workspace)]
        return [*defined, *(reader.features for reader in feature_sets.readers_in_force(self._workspace))]


def _key_tuples(subjects: pa.Table, entity: Entity) -> set[tuple[Any, ...]]:
    """Keys as the decision log holds them: times as microseconds."""
    rows = zip(*(subjects.column(name).to_pylist() for name in entity.keys), strict=True)
    return {tuple(to_micros(value) if hasattr(value, "tzinfo") else value for value in row) for row in rows}
