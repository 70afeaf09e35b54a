//! What a connection asks of its stream beyond reading: to send from memory and from a file.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use vltava_storage::slice::LogSlice;

/// A stream that sends. What it has of its own is for the operating system's sockets; any other
/// stream is served through memory.
pub trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Sends from memory as much as there is room for. With `more`, the rest of the response follows
    /// at once: a packet of its own for its head would wake the client for next to nothing.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        _more: bool,
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write_vectored(cx, slices)
    }

    /// Sends what follows the first `sent` bytes of `slice`, as much as there is room for.
    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        slice: &LogSlice,
        sent: usize,
    ) -> Poll<io::Result<usize>> {
        let bytes = slice.bytes()?;
        Pin::new(self).poll_write(cx, &bytes[sent..])
    }
}

impl Socket for TcpStream {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        if !more {
            return Pin::new(self).poll_write_vectored(cx, slices);
        }
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        poll_ready(self, cx, |socket| {
            Ok(sendmsg(socket, slices, &mut SendAncillaryBuffer::default(), flags)?)
        })
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        slice: &LogSlice,
        sent: usize,
    ) -> Poll<io::Result<usize>> {
        poll_ready(self, cx, |socket| slice.send(sent, socket.as_fd()))
    }
}

/// Sends by a call that tokio does not have, once the socket has room.
fn poll_ready(
    socket: &TcpStream,
    cx: &mut Context<'_>,
    mut send: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(socket.poll_write_ready(cx))?;
        match socket.try_io(Interest::WRITABLE, || send(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return Poll::Ready(sent),
        }
    }
}
