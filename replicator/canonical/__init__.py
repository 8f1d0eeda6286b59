"""Canonical forms of the audit: one spelling of a value that both engines reach, so that equal values hash alike.

``forms`` names the forms and spells SQLite's values; ``times`` and ``documents`` do dates and JSON; ``images`` frames the
values of a row, hashes rows, puts keys into buckets, and turns a canonical text back into one a person can read.
PostgreSQL spells the same forms in SQL: ``sql/postgres/audit.sql``, one block per form.
"""

from replicator.canonical.forms import FORMS_VERSION, Form, NoFormError, Undecodable, Value, canonical_text
from replicator.canonical.images import (
    Cell,
    bucket_of,
    frame,
    hash_images,
    image_rows,
    native_value,
    readable,
    split_image,
)
from replicator.canonical.vectors import VECTORS, Probe

__all__ = [
    "FORMS_VERSION",
    "VECTORS",
    "Cell",
    "Form",
    "NoFormError",
    "Probe",
    "Undecodable",
    "Value",
    "bucket_of",
    "canonical_text",
    "frame",
    "hash_images",
    "image_rows",
    "native_value",
    "readable",
    "split_image",
]
