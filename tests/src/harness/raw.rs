//! A socket that says anything: whole requests, halves of them, lies about their length.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use libtest_mimic::Failed;

use super::Tested;

/// How long a response may take before the test fails. Generous: the machine may be busy.
pub const RESPONSE_DEADLINE: Duration = Duration::from_secs(30);
/// The client id that every request carries.
const CLIENT_ID: &str = "vltava-tests";
/// No response of these tests is larger; a larger length prefix is a broken broker.
const RESPONSE_BYTES_MAX: usize = 128 << 20;

/// One TCP connection to a broker, blocking.
#[derive(Debug)]
pub struct RawClient {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl RawClient {
    /// Connects to `host:port`.
    pub fn connect(bootstrap: &str) -> Tested<RawClient> {
        let address = bootstrap.to_socket_addrs()?.next().ok_or("no address to connect to")?;
        let stream = TcpStream::connect_timeout(&address, RESPONSE_DEADLINE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(RESPONSE_DEADLINE))?;
        stream.set_write_timeout(Some(RESPONSE_DEADLINE))?;
        Ok(RawClient { stream, next_correlation_id: 1 })
    }

    /// The socket, for tests that need its options.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Tested {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Writes `body` with a truthful length prefix.
    pub fn send_frame(&mut self, body: &[u8]) -> Tested {
        self.send_bytes(&framed(body))
    }

    /// Sends a request and gives its correlation id, without waiting for the response.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> Tested<i32> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = encode(version, correlation_id, request)?;
        self.send_bytes(&frame)?;
        Ok(correlation_id)
    }

    /// Sends a request and waits for its response.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Tested<R::Response> {
        let correlation_id = self.send(version, request)?;
        self.receive::<R>(version, correlation_id)
    }

    /// Waits for the response to an earlier [`RawClient::send`].
    pub fn receive<R: Request>(&mut self, version: i16, correlation: i32) -> Tested<R::Response> {
        let frame = self.read_frame()?.ok_or("connection closed instead of a response")?;
        decode::<R>(version, correlation, frame)
    }

    /// The next frame without its length prefix; none when the broker closed the connection.
    pub fn read_frame(&mut self) -> Tested<Option<Bytes>> {
        let mut prefix = [0; 4];
        if !self.read_all(&mut prefix)? {
            return Ok(None);
        }
        let length = usize::try_from(i32::from_be_bytes(prefix))?;
        if length > RESPONSE_BYTES_MAX {
            return Err(Failed::from(format!("response of {length} bytes")));
        }
        let mut body = vec![0; length];
        if !self.read_all(&mut body)? {
            return Err(Failed::from("connection closed inside a response"));
        }
        Ok(Some(body.into()))
    }

    /// The broker must close this connection without another byte.
    pub fn expect_closed(&mut self) -> Tested {
        match self.read_frame()? {
            None => Ok(()),
            Some(frame) => Err(Failed::from(format!(
                "a response of {} bytes where the connection should be closed: {:02x?}",
                frame.len(),
                &frame[..frame.len().min(64)]
            ))),
        }
    }

    /// Says that no more bytes will come.
    pub fn finish(&mut self) -> Tested {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Fills `buffer`; false when the broker had closed before its first byte.
    fn read_all(&mut self, buffer: &mut [u8]) -> Tested<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(Failed::from("connection closed inside a frame")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A reset is how a close looks when bytes of ours were still unread.
                Err(error) if error.kind() == ErrorKind::ConnectionReset && filled == 0 => {
                    return Ok(false);
                }
                Err(error) => return Err(Failed::from(format!("no response: {error}"))),
            }
        }
        Ok(true)
    }
}

/// `body` behind its length.
pub fn framed(body: &[u8]) -> Vec<u8> {
    let length = i32::try_from(body.len()).expect("test frames are small");
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

/// A whole request frame with its length prefix.
pub fn encode<R: Request>(version: i16, correlation_id: i32, request: &R) -> Tested<Vec<u8>> {
    let mut body = header(R::KEY, version, correlation_id, R::header_version(version))?;
    request.encode(&mut body, version)?;
    Ok(framed(&body))
}

/// A request header alone, for bodies that no encoder would write.
pub fn header(key: i16, version: i16, correlation: i32, header_version: i16) -> Tested<BytesMut> {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str(CLIENT_ID)))
        .encode(&mut body, header_version)?;
    Ok(body)
}

/// A request header of type `R` followed by `body`, without a length prefix.
pub fn with_header<R: Request>(version: i16, correlation: i32, body: &[u8]) -> Tested<Vec<u8>> {
    let mut frame = header(R::KEY, version, correlation, R::header_version(version))?;
    frame.put_slice(body);
    Ok(frame.to_vec())
}

/// Decodes a response to `R`.
///
/// Errors: another correlation id, or bytes that are left over.
pub fn decode<R: Request>(version: i16, correlation: i32, frame: Bytes) -> Tested<R::Response> {
    let mut rest = frame;
    let header = ResponseHeader::decode(&mut rest, R::Response::header_version(version))?;
    if header.correlation_id != correlation {
        let got = header.correlation_id;
        return Err(Failed::from(format!("correlation id {got}, expected {correlation}")));
    }
    let response = R::Response::decode(&mut rest, version)?;
    if !rest.is_empty() {
        return Err(Failed::from(format!("{} bytes after a response", rest.len())));
    }
    Ok(response)
}
