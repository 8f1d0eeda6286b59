-- One of the rows there are, one transaction.
\set id random(1, :rows)
update test_metric set value = value + 1 where id = :id;
