//! One question to the admin listener of a broker: a request of HTTP/1.0, which is answered and closed.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::ClientError;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// A status and the body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpAnswer {
    /// 200 if all is well.
    pub status: u16,
    /// What the page says.
    pub body: Vec<u8>,
}

/// Asks `address` (`HOST:PORT`) for `path`, which is percent-encoded.
pub async fn get(address: &str, path: &str, limit: Duration) -> Result<HttpAnswer, ClientError> {
    ask("GET", address, path, limit).await
}

/// Tells `address` (`HOST:PORT`) to do what `path` says, which is percent-encoded.
pub async fn post(address: &str, path: &str, limit: Duration) -> Result<HttpAnswer, ClientError> {
    ask("POST", address, path, limit).await
}

async fn ask(
    method: &str,
    address: &str,
    path: &str,
    limit: Duration,
) -> Result<HttpAnswer, ClientError> {
    let exchange = async {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|error| ClientError::Connect { address: address.to_owned(), error })?;
        let request = format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        let mut answer = Vec::new();
        let talk = async {
            stream.write_all(request.as_bytes()).await?;
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await
        };
        talk.await.map_err(|error| ClientError::Broken { address: address.to_owned(), error })?;
        Ok(answer)
    };
    let answer = tokio::time::timeout(limit, exchange).await.map_err(|_| {
        ClientError::Timeout { address: address.to_owned(), timeout_ms: limit.as_millis() }
    })??;
    parse(answer).ok_or_else(|| ClientError::Malformed {
        address: address.to_owned(),
        api: "HTTP",
        reason: "no status line and headers".to_owned(),
    })
}

fn parse(mut answer: Vec<u8>) -> Option<HttpAnswer> {
    const BLANK_LINE: &[u8] = b"\r\n\r\n";
    let head_bytes = answer.windows(BLANK_LINE.len()).position(|window| window == BLANK_LINE)?;
    let body = answer.split_off(head_bytes + BLANK_LINE.len());
    let head = std::str::from_utf8(&answer).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer { status, body })
}

/// Writes a name so that it can stand in a path (RFC 3986: all but the unreserved characters).
pub fn percent_encoded(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n{}".to_vec();
        assert_eq!(parse(answer), Some(HttpAnswer { status: 404, body: b"{}".to_vec() }));
        for foreign in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"\x00\x00\r\n\r\n", b"HTTP/1.1\r\n\r\n"]
        {
            assert_eq!(parse(foreign.to_vec()), None, "{foreign:?}");
        }
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(percent_encoded("a-1.b_~"), "a-1.b_~");
        assert_eq!(percent_encoded("a/b c%ř"), "a%2Fb%20c%25%C5%99");
    }
}
