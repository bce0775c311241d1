//! The `tcmu-pr` program.

fn main() {}
