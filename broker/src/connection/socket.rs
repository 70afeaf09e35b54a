//! What a connection asks of its stream, beyond bytes in and bytes out.
//!
//! Two kinds exist: TCP, and whatever else carries bytes (a test's pipe), which does without. Both
//! calls are cancel-safe, as `poll_write` is: what is not ready has not happened.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::sendfile;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use vltava_protocol::part::FileRange;

/// A stream of bytes in both directions.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Writes a beginning of `parts`. With `more`, something is written right behind them, and they
    /// need not leave in a packet of their own.
    fn poll_write_parts(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        _more: bool,
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(cx, parts)
    }

    /// Sends up to `bytes` bytes of a file; 0 is the end of the file. `Unsupported` where the bytes
    /// must be written from memory: this kind of stream, or of file.
    ///
    /// It waits for the disk if they are not in the page cache.
    fn poll_send_file(
        &mut self,
        _cx: &mut Context<'_>,
        _range: &FileRange,
        _bytes: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

impl Socket for TcpStream {
    fn poll_write_parts(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        if !more {
            return Pin::new(self).poll_write_vectored(cx, parts);
        }
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        poll_call(self, cx, || sendmsg(&*self, parts, &mut SendAncillaryBuffer::default(), flags))
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        range: &FileRange,
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        let call = || {
            let mut position = range.position;
            sendfile(&*self, &*range.file, Some(&mut position), bytes)
        };
        poll_call(self, cx, call).map_err(|error| match Errno::from_io_error(&error) {
            // A file system that cannot do it says so with either.
            Some(Errno::INVAL | Errno::NOSYS) => io::ErrorKind::Unsupported.into(),
            _ => error,
        })
    }
}

/// Makes a call that writes, once the socket has room.
fn poll_call(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    call: impl Fn() -> Result<usize, Errno>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, || Ok(call()?)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
    }
}
