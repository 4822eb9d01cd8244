//! The `ortx` command.
fn main() {}
