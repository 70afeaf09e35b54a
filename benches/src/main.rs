//! Side-by-side comparisons with peers.

fn main() {}
