//! Simulator: a provider that answers like the real ones, for the demo and for tests.
