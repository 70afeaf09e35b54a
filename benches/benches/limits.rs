//! What this machine can do at best: the yardstick for every other benchmark here.
//!
//! Plain loops over the operating system's calls, nothing of ours in them but the CRC. They run in
//! the same command as ours, because a shared machine's limits change from hour to hour. Processor
//! time, but for the syncs: there the wait is what counts.

use std::hint::black_box;
use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rustix::fs::{Mode, OFlags, sendfile};
use rustix::net::{SendFlags, send};
use tempfile::TempDir;
use vltava_benches::fixtures::BATCH_SIZES;
use vltava_benches::runs::{Clock, capacity, timed};
use vltava_protocol::record::batch::crc32c;

mod measure;

use measure::{By, by};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KIB: usize = 1 << 10;

fn memory(c: &mut Criterion<By>) {
    let mut group = c.benchmark_group("limits/memcpy");
    for (name, size) in [("64 KiB", 64 * KIB), ("1 MiB", 1024 * KIB)] {
        let (source, mut target) = (vec![7_u8; size], vec![0_u8; size]);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| black_box(&mut target[..]).copy_from_slice(black_box(&source)));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("limits/crc32c");
    for (name, size) in [("16 KiB", 16 * KIB), ("64 KiB", 64 * KIB), ("1 MiB", 1024 * KIB)] {
        let bytes = vec![7_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| crc32c(black_box(&bytes)));
        });
    }
    group.finish();
}

/// A file on the disk of the build directory, and where its next byte goes.
struct Growing {
    file: OwnedFd,
    position: u64,
    _dir: TempDir,
}

impl Growing {
    fn new() -> Self {
        let dir =
            TempDir::new_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("a scratch directory");
        let flags = OFlags::CREATE | OFlags::RDWR;
        let file = rustix::fs::open(dir.path().join("file"), flags, Mode::RUSR | Mode::WUSR)
            .expect("a scratch file");
        Self { file, position: 0, _dir: dir }
    }

    /// A file whose first `bytes` are written and synced: its blocks are allocated.
    fn written(bytes: usize) -> Self {
        let mut growing = Self::new();
        growing.append(&vec![1; bytes]);
        growing.sync();
        growing.position = 0;
        growing
    }

    fn append(&mut self, bytes: &[u8]) {
        let parts = [IoSlice::new(&bytes[..16]), IoSlice::new(&bytes[16..])];
        let written = rustix::io::pwritev(&self.file, &parts, self.position).expect("a write");
        assert_eq!(written, bytes.len());
        self.position += written as u64;
    }

    fn sync(&self) {
        rustix::fs::fdatasync(&self.file).expect("a sync");
    }
}

/// Aligned writes take whole pages; batches do not, and the kernel looks up a page twice for them.
fn files(c: &mut Criterion<By>) {
    for (name, less) in [("limits/pwritev", 0), ("limits/pwritev, unaligned", 29)] {
        let mut group = c.benchmark_group(name);
        for (name, size) in BATCH_SIZES {
            let bytes = vec![7_u8; size - less];
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(name), |b| {
                let append = |file: &mut Growing| file.append(&bytes);
                let capacity = capacity(size);
                b.iter_custom(|n| timed(Clock::Thread, n, capacity, Growing::new, append));
            });
        }
        group.finish();
    }
}

fn syncs(c: &mut Criterion<By>) {
    let mut group = c.benchmark_group("limits/pwritev+fdatasync");
    group.sample_size(20);
    let bytes = vec![7_u8; 16 * KIB];
    let sync = |file: &mut Growing| {
        file.append(&bytes);
        file.sync();
    };
    group.throughput(Throughput::Bytes(16 * KIB as u64));
    group.bench_function("16 KiB growing", |b| {
        b.iter_custom(|n| timed(Clock::Wall, n, capacity(16 * KIB), Growing::new, sync));
    });
    group.bench_function("16 KiB over written blocks", |b| {
        let fresh = || Growing::written(4096 * KIB);
        b.iter_custom(|n| timed(Clock::Wall, n, 256, fresh, sync));
    });
    group.finish();
}

/// Bytes of a response over loopback, the other end of which reads as fast as it can: from memory,
/// and from a file as a log of 64 KiB batches. The processor time of both ends.
fn loopback(c: &mut Criterion<By>) {
    const SIZES: [(&str, usize); 2] = [("256 KiB", 256 * KIB), ("1 MiB", 1024 * KIB)];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut sender = TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
    let (mut receiver, _) = listener.accept().expect("loopback");
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 256 * KIB];
        while receiver.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let head = vec![1_u8; 100];
    let mut group = c.benchmark_group("limits/loopback writev");
    for (name, size) in SIZES {
        let body = vec![7_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut parts = &mut [IoSlice::new(&head), IoSlice::new(&body)][..];
                while !parts.is_empty() {
                    let written = sender.write_vectored(parts).expect("loopback");
                    IoSlice::advance_slices(&mut parts, written);
                }
            });
        });
    }
    group.finish();
    let mut log = Growing::new();
    while log.position < 1024 * KIB as u64 {
        log.append(&vec![7; 64 * KIB - 29]);
    }
    let mut group = c.benchmark_group("limits/loopback sendfile");
    for (name, size) in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let sent = send(&sender, &head, SendFlags::MORE).expect("loopback");
                assert_eq!(sent, head.len());
                let mut position = 0;
                while position < size as u64 {
                    let left = size - position as usize;
                    sendfile(&sender, &log.file, Some(&mut position), left).expect("loopback");
                }
            });
        });
    }
    group.finish();
    drop(sender);
    reader.join().expect("the reader ends with the connection");
}

criterion_group! {
    name = threads;
    config = by(Clock::Thread);
    targets = memory, files
}
criterion_group! {
    name = waits;
    config = by(Clock::Wall);
    targets = syncs
}
criterion_group! {
    name = processes;
    config = by(Clock::Process);
    targets = loopback
}
criterion_main!(threads, waits, processes);
