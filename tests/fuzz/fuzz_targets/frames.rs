//! Coverage-guided fuzzing of what a socket may say: frames, headers, all request bodies.
#![no_main]

#[path = "../decoders.rs"]
#[allow(dead_code, reason = "the damaging test uses what a fuzzer does not")]
mod decoders;

use libfuzzer_sys::fuzz_target;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fuzz_target!(|bytes: &[u8]| {
    decoders::enter(bytes);
});
