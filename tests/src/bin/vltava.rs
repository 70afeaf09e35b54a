//! The broker's binary, built with the tests: `cargo test --workspace` neither builds the binary of
//! another package nor tells where it is.

/// As in the shipped binary: a hostile array count reserves memory without touching it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    vltava::cli::main()
}
