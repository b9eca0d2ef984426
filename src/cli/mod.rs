//! CLI: one file per subcommand.
