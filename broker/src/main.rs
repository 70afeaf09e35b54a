//! The `vltava` binary: the library's command line, on an allocator that reserves without
//! committing. A hostile array count makes the wire crate reserve gigabytes; with the system's
//! allocator that would end the process.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    vltava::cli::main()
}
