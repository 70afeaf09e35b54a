//! Responses on their way to the client, in the order of their requests.
//!
//! Large runs of batches go from the file to the socket without passing through our memory; all else
//! is gathered into vectored writes. How a part goes is decided when it is pushed, for all of it, so
//! that a part that goes by file is never touched through the map.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use prometheus_client::metrics::gauge::Gauge;
use vltava_protocol::messages::ResponseFrame;
use vltava_protocol::part::Part;

use super::socket::Socket;
use super::{Boxed, Reply};

/// While this many response bytes wait for the client to read, nothing new begins or completes.
/// One response may exceed it, by the Fetch limits.
pub const OUTGOING_BYTES_MAX: usize = 4 << 20;

/// Shorter runs are written from memory: the kernel copies them sooner than it collects the pages of
/// the file and pays for the calls before and behind. Over loopback, both ends together, a call of
/// 64 KiB costs 1.3 to 1.6 times the processor time of a `writev` from the map, one of 256 KiB as
/// much or a little more, one of 1 MiB a tenth to a fourth less, in pieces of the page cache that
/// were written as 64 KiB batches; and a map that nobody has touched costs page faults besides.
const SEND_FILE_BYTES_MIN: usize = 512 << 10;
/// Most bytes of a file in one call; then others may have their turn.
const SEND_FILE_BYTES_MAX: usize = 1 << 20;
/// Most slices of one vectored write, Linux's `IOV_MAX` is far above; more gives nothing.
const WRITE_SLICES_MAX: usize = 64;

/// A begun request whose turn to be answered has not come.
pub(super) enum Waiting {
    /// It is done.
    Ready(Reply),
    /// Its rest is still to be polled.
    Rest(Boxed<Reply>),
}

/// Response parts that the socket has not taken.
pub(super) struct Outgoing {
    parts: VecDeque<Part>,
    pub(super) bytes: usize,
    /// The bytes of all connections.
    unread_bytes: Gauge,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Outgoing {
    pub(super) fn new(unread_bytes: Gauge) -> Self {
        Self { parts: VecDeque::new(), bytes: 0, unread_bytes }
    }

    /// Drops what nobody will read.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.unread_bytes.dec_by(self.bytes as i64);
        self.bytes = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= OUTGOING_BYTES_MAX
    }

    pub(super) fn push(&mut self, frame: ResponseFrame) {
        self.unread_bytes.inc_by(frame.bytes() as i64);
        for mut part in frame.into_parts() {
            if part.is_empty() {
                continue;
            }
            if part.len() < SEND_FILE_BYTES_MIN {
                part.forget_file();
            }
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// Hands a beginning of what is here to the socket, with one call. There must be something.
    pub(super) fn poll_write<S: Socket>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let head = self.parts.front_mut().expect("there are bytes");
        let written = if let Some(range) = head.file() {
            let bytes = head.len().min(SEND_FILE_BYTES_MAX);
            match ready!(socket.poll_send_file(cx, range, bytes)) {
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    head.forget_file();
                    return Poll::Ready(Ok(()));
                }
                sent => sent,
            }
        } else {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
            let count = self.fill(&mut slices);
            let more = count < self.parts.len();
            match ready!(socket.poll_write_parts(cx, &slices[..count], more)) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                written => written,
            }
        };
        Poll::Ready(written.map(|written| self.advance(written)))
    }

    /// Fills `slices` from the front, up to a part that goes by file; how many there are.
    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = self.parts.iter().take_while(|part| part.file().is_none());
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part.bytes());
            count += 1;
        }
        count
    }

    /// Drops `written` bytes from the front.
    fn advance(&mut self, mut written: usize) {
        assert!(written <= self.bytes, "the socket takes what it was given");
        self.bytes -= written;
        self.unread_bytes.dec_by(written as i64);
        while written > 0 {
            let head = self.parts.front_mut().expect("bytes counts the parts");
            if head.len() > written {
                head.advance(written);
                return;
            }
            written -= head.len();
            self.parts.pop_front();
        }
    }
}

impl Waiting {
    /// Bytes that wait in it.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Ready(Reply::Frame(frame)) => frame.bytes(),
            Self::Ready(_) | Self::Rest(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::poll_fn;
    use std::io::Write;
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use vltava_protocol::error_code::ErrorCode;
    use vltava_protocol::ids::{PartitionIndex, TopicId, TopicName};
    use vltava_protocol::messages::FetchResponse;
    use vltava_protocol::messages::fetch::{FetchPartitionResponse, FetchTopicResponse};
    use vltava_protocol::part::FileRange;

    use super::*;

    const LARGE: usize = 3 << 20;

    /// Both ends of a connection; the sender's with little room.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(64 << 10).unwrap();
        let sender = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        (sender, listener.accept().await.unwrap().0)
    }

    fn pattern(bytes: usize, seed: u8) -> Bytes {
        (0..bytes).map(|at| (at / 251) as u8 ^ seed.wrapping_add(at as u8)).collect()
    }

    fn file_of(content: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        Arc::new(file)
    }

    fn part(file: &Arc<File>, position: u64, bytes: Bytes) -> Part {
        Part::in_file(bytes, Some(FileRange { file: file.clone(), position }))
    }

    /// A response of one partition for each part, between which other fields lie.
    fn frame(parts: Vec<Part>) -> ResponseFrame {
        let partition = |(part, index)| FetchPartitionResponse {
            records: vec![part],
            ..FetchPartitionResponse::empty(PartitionIndex(index), ErrorCode::None)
        };
        let topic = FetchTopicResponse {
            topic: TopicName::new("t"),
            topic_id: TopicId::ZERO,
            partitions: parts.into_iter().zip(0..).map(partition).collect(),
        };
        let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
        response.encode(7, 12).unwrap()
    }

    async fn write_all(outgoing: &mut Outgoing, socket: &mut TcpStream) -> io::Result<()> {
        while outgoing.bytes > 0 {
            poll_fn(|cx| outgoing.poll_write(socket, cx)).await?;
        }
        Ok(())
    }

    async fn received(parts: Vec<Part>) -> Vec<u8> {
        let (mut sender, mut receiver) = connected().await;
        let frame = frame(parts);
        let mut received = vec![0; frame.bytes()];
        let unread = Gauge::default();
        let mut outgoing = Outgoing::new(unread.clone());
        outgoing.push(frame);
        let sending = write_all(&mut outgoing, &mut sender);
        tokio::try_join!(sending, receiver.read_exact(&mut received)).unwrap();
        assert_eq!((outgoing.bytes, unread.get()), (0, 0));
        received
    }

    #[tokio::test]
    async fn large_parts_come_from_the_file_and_small_ones_from_memory() {
        let content = pattern(LARGE + 5000, 1);
        let file = file_of(&content);
        // What goes by file is not touched in memory, so nobody sees that it is something else there.
        let elsewhere = Bytes::from(vec![0; LARGE]);
        let small = pattern(SEND_FILE_BYTES_MIN - 1, 2);
        let parts = |large: Bytes| {
            vec![
                part(&file, 1234, large),
                part(&file, 0, small.clone()),
                Part::from(pattern(100_000, 3)),
                part(&file, 77, content.slice(77..77 + SEND_FILE_BYTES_MIN)),
            ]
        };
        let expected = frame(parts(content.slice(1234..1234 + LARGE))).concat();
        assert!(received(parts(elsewhere)).await == expected);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_sent_is_written_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Arc::new(File::options().read(true).open(dir.path()).unwrap());
        let parts = vec![part(&dir, 0, pattern(LARGE, 5)), part(&dir, 9, pattern(LARGE, 6))];
        assert!(received(parts.clone()).await == frame(parts).concat());
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_fails_the_connection() {
        let (mut sender, mut receiver) = connected().await;
        let file = file_of(&pattern(LARGE, 1));
        let mut outgoing = Outgoing::new(Gauge::default());
        outgoing.push(frame(vec![part(&file, 1, pattern(LARGE, 1))]));
        let mut received = Vec::new();
        let sending = write_all(&mut outgoing, &mut sender);
        let reading = receiver.read_to_end(&mut received);
        let error = tokio::try_join!(sending, reading).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_is_an_error() {
        let (mut sender, receiver) = connected().await;
        let file = file_of(&pattern(LARGE, 1));
        let mut outgoing = Outgoing::new(Gauge::default());
        outgoing.push(frame(vec![part(&file, 0, pattern(LARGE, 1))]));
        poll_fn(|cx| outgoing.poll_write(&mut sender, cx)).await.unwrap();
        drop(receiver);
        let error = write_all(&mut outgoing, &mut sender).await.unwrap_err();
        let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(gone.contains(&error.kind()), "{error}");
    }
}
