-- One new row, one transaction.
insert into test_metric (analyser, metric, value, low, high, measured_at, note)
values (3, 'haemoglobin', 14.25, 12.5, 17.5, now(), 'single row');
