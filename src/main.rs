//! weir: arguments → command → exit code.

fn main() {}
