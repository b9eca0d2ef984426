//! Config: what the operator wrote, and what it means.
