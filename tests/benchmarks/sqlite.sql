-- What the benchmarks do to SQLite files.

-- name: table
create table test_metric (
    id integer primary key,
    analyser integer not null,
    metric text not null,
    value real,
    low numeric(10,2),
    high numeric(10,2),
    measured_at datetime not null,
    note text
)

-- name: insert_range
with recursive g (id) as (select :low union all select id + 1 from g where id < :high)
insert into test_metric
select id, id % 17, 'haemoglobin', abs(random() % 1000000) / 10000.0, 12.5, 17.5, '2025-11-03 08:15:00.123', 'note ' || id from g

-- name: update_range
update test_metric set value = value + 1, analyser = analyser + 1 where id between :low and :high and id % 10 < 3

-- name: delete_range
delete from test_metric where id between :low and :high and id % 10 = 9

-- name: bulk_update
update test_metric set value = value + 1, analyser = analyser + 1

-- name: bulk_delete
delete from test_metric

-- name: insert_one
insert into test_metric (id, analyser, metric, value, low, high, measured_at, note)
values (?, 3, 'haemoglobin', 14.25, 12.5, 17.5, '2025-11-03 08:15:00.123', 'single row')

-- name: update_one
update test_metric set value = value + 1 where id = ?

-- name: select_all
select * from test_metric

-- name: bytes
select (page_count - freelist_count) * page_size from pragma_page_count, pragma_freelist_count, pragma_page_size

-- name: fingerprint
select count(*), coalesce(sum(id), 0), coalesce(sum(analyser), 0), coalesce(sum(length(note)), 0) from test_metric

-- name: edit_range
update test_metric set value = value + 1 where id between :low and :high

-- name: three_days_ahead
update replicator_control set seen = cast((julianday('now') + 3 - 2440587.5) * 86400000000.0 as integer)

-- name: sliced_table
create table sliced (id integer primary key, slice integer not null, beat integer not null, note text)
