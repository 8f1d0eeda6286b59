-- The demo's factory application on PostgreSQL. It knows nothing of replication; the same names as in
-- sql/sqlite/demo.sql. At the end: what the demo asks the centre to see how far things have got.

-- name: open
set application_name = 'laboratory';

-- name: create_tables
create table operators (
    id bigint primary key,
    name text not null,
    badge text not null unique
);
create table analysers (
    id bigint primary key,
    serial text not null unique,
    model text not null,
    firmware text not null,
    built_on date not null
);
create table test_runs (
    id bigint primary key,
    analyser_id bigint not null references analysers (id),
    operator_id bigint not null references operators (id),
    lot text not null,
    started_at timestamp not null,
    verdict text,
    remark text
);
create table test_metrics (
    run_id bigint not null references test_runs (id) on delete cascade,
    metric text not null,
    value double precision not null,
    unit text not null,
    expected_low double precision not null,
    expected_high double precision not null,
    flag text,
    primary key (run_id, metric)
);

-- name: add_operator
insert into operators (id, name, badge) values ($1, $2, $3);

-- name: add_analyser
insert into analysers (id, serial, model, firmware, built_on) values ($1, $2, $3, $4, $5);

-- name: add_run
insert into test_runs (id, analyser_id, operator_id, lot, started_at, verdict, remark)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: add_metric
insert into test_metrics (run_id, metric, value, unit, expected_low, expected_high, flag)
values ($1, $2, $3, $4, $5, $6, $7);

-- name: correct_metric
update test_metrics set value = $3, flag = $4 where run_id = $1 and metric = $2;

-- name: judge_run
-- The verdict follows from the flags of the run's metrics.
update test_runs set verdict = case when exists (
    select 1 from test_metrics where run_id = $1 and flag is not null
) then 'failed' else 'passed' end, remark = $2 where id = $1;

-- name: update_firmware
update analysers set firmware = $1 where model = $2;

-- name: delete_run
delete from test_runs where id = $1;

-- name: find_run
-- The newest run not above a number: runs are deleted, so not every number is one.
select id from test_runs where id <= $1 order by id desc limit 1;

-- name: newest_run
select coalesce(max(id), 0) from test_runs;

-- name: newest_run_at_centre
select coalesce(max(id), 0) from test_runs where site = $1;

-- name: is_applying
-- 1 while the link of this site is in the middle of a large writing transaction here.
select count(*) from pg_stat_activity
 where datname = current_database() and application_name like 'replicator % ' || $1
   and backend_xid is not null and clock_timestamp() - xact_start > interval '0.1 s';

-- name: write_at_centre
-- Somebody edits a row by hand at the centre.
update test_runs set remark = $3 where site = $1 and id = $2;
