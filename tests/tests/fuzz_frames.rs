//! Every request decoder under random damage, through the frame entry: at least
//! [`CASES_PER_DECODER`] damaged requests each, starting from real encoded ones of every version.
//!
//! Checked: no panic, and no memory *touched* beyond [`GROWTH_BYTES_MAX`]. A hostile array count
//! makes the wire crate reserve room for it; under jemalloc, as in the shipped binary, such room is
//! address space alone until elements arrive. So the measure is the process' peak resident memory,
//! which counts every byte written to.
//!
//! `VLTAVA_TEST_SEED` repeats a run, `VLTAVA_FUZZ_CASES` makes it longer.
#![allow(clippy::disallowed_methods, reason = "the kernel tells the peak of memory through files")]

#[path = "../fuzz/decoders.rs"]
mod decoders;

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use bytes::Bytes;
use decoders::{DECODERS, Decoder, enter, set_length};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use vltava_tests::harness::{self, RawBatch, raw, requests};

/// As in the shipped binary.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Damaged requests per decoder.
const CASES_PER_DECODER: u32 = 20_000;
/// What decoding all cases of one decoder may add to the resident memory. No frame here is longer
/// than [`FRAME_BYTES_MAX`], so this is slack for the allocator, not for decoders.
const GROWTH_BYTES_MAX: u64 = 16 << 20;
/// Longer frames are cut.
const FRAME_BYTES_MAX: usize = 4_096;
/// Random bodies tried per version in search of populated seeds.
const SEED_ATTEMPTS: u32 = 400;
/// Seeds kept per decoder.
const SEEDS_MAX: usize = 200;

/// The peak is the whole process': one measurement at a time.
static MEASURING: Mutex<()> = Mutex::new(());

#[test]
fn every_decoder_survives_damage() {
    let _alone = MEASURING.lock();
    let seed = harness::seed("fuzz_frames");
    let cases = harness::rounds("VLTAVA_FUZZ_CASES", CASES_PER_DECODER);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut decoded = 0;
    for decoder in DECODERS {
        let seeds = seeds(decoder, &mut random);
        assert!(!seeds.is_empty(), "{} has no seed", decoder.name);
        for frame in &seeds {
            assert_eq!(enter(frame), 1, "{}: a seed must decode", decoder.name);
        }
        let before = start_measuring_peak();
        for case in 0..cases {
            let frame = damaged(&seeds, &mut random);
            let outcome = catch_unwind(AssertUnwindSafe(|| enter(&frame)));
            decoded += outcome.unwrap_or_else(|_| {
                panic!("{} case {case} of seed {seed}: {}", decoder.name, hex(&frame))
            });
        }
        let growth = peak_bytes().saturating_sub(before);
        assert!(growth <= GROWTH_BYTES_MAX, "{} touched {growth} bytes", decoder.name);
    }
    // Damage that no decoder ever accepts would only test the first check of each.
    let total = DECODERS.len() * cases as usize;
    assert!(decoded > total / 20, "only {decoded} of {total} damaged requests decoded");
}

/// The worst single requests that are known: counts far above what the frame can hold.
#[test]
fn giant_counts_are_errors() {
    let _alone = MEASURING.lock();
    for decoder in DECODERS {
        for version in decoder.versions.min..=decoder.versions.max {
            for byte in [0x7f, 0xff] {
                let body = [byte; 64];
                let before = start_measuring_peak();
                enter(&decoder.frame(version, &body));
                let mut counted = vec![0x7f, 0xff, 0xff, 0xff];
                counted.extend_from_slice(&[0; 8]);
                enter(&decoder.frame(version, &counted));
                let growth = peak_bytes().saturating_sub(before);
                assert!(growth <= GROWTH_BYTES_MAX, "{} {version}: {growth}", decoder.name);
            }
        }
    }
}

/// Frames that decode: defaults, populated ones found at random, and hand-made ones.
fn seeds(decoder: &Decoder, random: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in decoder.versions.min..=decoder.versions.max {
        seeds.extend(decoder.default_frame(version));
        let mut longest = Bytes::new();
        for _ in 0..SEED_ATTEMPTS {
            let body = noise(random);
            let Some(body) = decoder.canonical(version, body) else { continue };
            // What was written back must be readable: it is what a real client would send.
            if body.len() > longest.len() && decoder.canonical(version, body.clone()).is_some() {
                longest = body;
                seeds.push(decoder.frame(version, &longest));
            }
        }
    }
    seeds.extend(
        made_by_hand().into_iter().filter(|frame| frame[4..6] == decoder.key.to_be_bytes()),
    );
    seeds.truncate(SEEDS_MAX);
    seeds
}

/// Requests as clients send them.
fn made_by_hand() -> Vec<Vec<u8>> {
    let records = RawBatch::of(3, 1_700_000_000_000).encode();
    let mut frames = Vec::new();
    for version in [3, 7, 9, 12] {
        let produce = requests::produce_request("topic", 0, -1, records.clone());
        frames.push(raw::encode(version, 7, &produce));
    }
    for version in [4, 7, 11, 12] {
        frames.push(raw::encode(version, 7, &requests::fetch_request("topic", 5)));
    }
    for version in [4, 8, 9, 12] {
        frames.push(raw::encode(version, 7, &requests::metadata_request(&["one", "two"])));
    }
    for version in [1, 5, 6, 10] {
        frames.push(raw::encode(version, 7, &requests::list_offsets_request("topic", 0..3, -1)));
    }
    for version in [2, 5, 7] {
        let create = requests::create_topic_request("topic", 3, &[("retention.ms", "1")]);
        frames.push(raw::encode(version, 7, &create));
    }
    frames.into_iter().map(|frame| frame.expect("requests made by hand encode")).collect()
}

/// A short body of bytes that often mean something: small counts, lengths, text, nulls.
fn noise(random: &mut ChaCha8Rng) -> Bytes {
    let length = random.random_range(4..96);
    let mut body = Vec::with_capacity(length + 8);
    while body.len() < length {
        match random.random_range(0..8) {
            0..3 => body.push(0),
            3 => body.push(random.random_range(1..4)),
            4 => body.extend_from_slice(&[0, 0, 0, random.random_range(0..3)]),
            5 => body.extend_from_slice(&[0, 2, b'a', b'b']),
            6 => body.extend_from_slice(&[3, b'a', b'b']),
            _ => body.push(random.random()),
        }
    }
    body.into()
}

/// A seed after one to five wounds. Its length is mostly made true again, so that the damage
/// reaches the decoders.
fn damaged(seeds: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut frame = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(1..6) {
        wound(&mut frame, seeds, random);
    }
    frame.truncate(FRAME_BYTES_MAX);
    if frame.len() >= 4 && random.random_range(0..16) > 0 {
        set_length(&mut frame);
    }
    frame
}

fn wound(frame: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut ChaCha8Rng) {
    const INTS: [i32; 8] = [0, 1, -1, -2, i32::MAX, i32::MIN, 0x00ff_ffff, 200_000_000];
    const VARINTS: [&[u8]; 4] =
        [&[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 10], &[0x80, 0x80, 0x01], &[0]];
    // The header is hit less often than the body: most requests must be of a known API.
    let body = random.random_range(0..8) > 0;
    let from = if body { frame.len().min(12) } else { frame.len().min(4) };
    let at = random.random_range(from..=frame.len());
    let rest = frame.len() - at;
    match random.random_range(0..8) {
        0 if rest > 0 => frame[at] ^= 1 << random.random_range(0..8),
        1 if rest > 0 => frame[at] = random.random(),
        2 if rest >= 4 => {
            let int = INTS[random.random_range(0..INTS.len())];
            frame[at..at + 4].copy_from_slice(&int.to_be_bytes());
        }
        3 => {
            let varint = VARINTS[random.random_range(0..VARINTS.len())];
            frame.splice(at..at, varint.iter().copied());
        }
        4 => drop(frame.drain(at..at + random.random_range(0..=rest.min(16)))),
        5 => {
            let copied = frame[at..at + random.random_range(0..=rest.min(64))].to_vec();
            frame.splice(at..at, copied);
        }
        6 => frame.truncate(at),
        _ => {
            let other = &seeds[random.random_range(0..seeds.len())];
            let cut = random.random_range(0..=other.len());
            frame.truncate(at);
            frame.extend_from_slice(&other[cut..]);
        }
    }
    if frame.len() < 4 {
        frame.resize(4, 0);
    }
    // Noise at the end lets a truncated body go on in a way that no seed does.
    if random.random_range(0..8) == 0 {
        let mut tail = [0; 16];
        random.fill_bytes(&mut tail);
        frame.extend_from_slice(&tail);
    }
}

/// Resets the kernel's record of this process' peak and gives what is resident now.
fn start_measuring_peak() -> u64 {
    std::fs::write("/proc/self/clear_refs", "5").expect("the kernel resets our own peak");
    peak_bytes()
}

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells our status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("with VmHWM");
    let kib = line.trim().strip_suffix(" kB").expect("in kB");
    kib.trim().parse::<u64>().expect("a number") * 1024
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
