-- The clinic's application on a laptop of config/clinic. It knows nothing of replication. Run with the sqlite3 shell.

create table drugs (
    code text not null primary key,
    name text not null,
    strength text not null
);
create table staff (
    id integer primary key,
    name text not null,
    role text not null,
    email text unique
);
create table patients (
    id integer primary key,
    name text not null,
    born date not null,
    ward integer not null,
    allergies text
);
create table vitals (
    id uuid not null primary key,
    patient_id integer not null references patients (id),
    taken_at timestamptz not null,
    pulse integer,
    temperature real
);
create table prescriptions (
    id uuid not null primary key,
    patient_id integer not null references patients (id),
    drug_code text not null references drugs (code),
    dose text not null,
    until date
);
create table stock (
    drug_code text not null primary key references drugs (code),
    on_shelf integer not null,
    note text
);
