//! Limits: admit or refuse. Knows periods of time so far.

pub mod window;
