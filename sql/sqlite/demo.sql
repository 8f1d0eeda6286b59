-- The demo's factory application on SQLite. It knows nothing of replication; the same names as in sql/postgres/demo.sql.

-- name: open
pragma foreign_keys = on;
pragma journal_mode = wal;
pragma synchronous = normal;

-- name: create_tables
create table operators (
    id integer primary key,
    name text not null,
    badge text not null unique
);
create table analysers (
    id integer primary key,
    serial text not null unique,
    model text not null,
    firmware text not null,
    built_on date not null
);
create table test_runs (
    id integer primary key,
    analyser_id integer not null references analysers (id),
    operator_id integer not null references operators (id),
    lot text not null,
    started_at timestamp not null,
    verdict text,
    remark text
);
create table test_metrics (
    run_id integer not null references test_runs (id) on delete cascade,
    metric text not null,
    value real not null,
    unit text not null,
    expected_low real not null,
    expected_high real not null,
    flag text,
    primary key (run_id, metric)
);

-- name: add_operator
insert into operators (id, name, badge) values (?1, ?2, ?3);

-- name: add_analyser
insert into analysers (id, serial, model, firmware, built_on) values (?1, ?2, ?3, ?4, ?5);

-- name: add_run
insert into test_runs (id, analyser_id, operator_id, lot, started_at, verdict, remark)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: add_metric
insert into test_metrics (run_id, metric, value, unit, expected_low, expected_high, flag)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: correct_metric
update test_metrics set value = ?3, flag = ?4 where run_id = ?1 and metric = ?2;

-- name: judge_run
-- The verdict follows from the flags of the run's metrics.
update test_runs set verdict = case when exists (
    select 1 from test_metrics where run_id = ?1 and flag is not null
) then 'failed' else 'passed' end, remark = ?2 where id = ?1;

-- name: update_firmware
update analysers set firmware = ?1 where model = ?2;

-- name: delete_run
delete from test_runs where id = ?1;

-- name: find_run
-- The newest run not above a number: runs are deleted, so not every number is one.
select id from test_runs where id <= ?1 order by id desc limit 1;

-- name: newest_run
select coalesce(max(id), 0) from test_runs;
