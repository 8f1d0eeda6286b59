-- The clinic's application on PostgreSQL: the centre of config/clinic. It knows nothing of replication. Run with psql.

create table drugs (
    code text primary key,
    name text not null,
    strength text not null
);
create table staff (
    id bigint primary key,
    name text not null,
    role text not null,
    email text unique
);
create table patients (
    id bigint primary key,
    name text not null,
    born date not null,
    ward bigint not null,
    allergies text
);
create table vitals (
    id uuid primary key,
    patient_id bigint not null references patients (id),
    taken_at timestamp with time zone not null,
    pulse bigint,
    temperature double precision
);
create table prescriptions (
    id uuid primary key,
    patient_id bigint not null references patients (id),
    drug_code text not null references drugs (code),
    dose text not null,
    until date
);
create table stock (
    drug_code text primary key references drugs (code),
    on_shelf bigint not null,
    note text
);
-- A laptop's rows are found by patient.
create index vitals_patient on vitals (patient_id);
create index prescriptions_patient on prescriptions (patient_id);
