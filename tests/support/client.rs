//! A blocking client that shows replies as the raw bytes the server sent, cut where a reply ends.
//! It has no idea what a reply means to a command.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use redis_protocol::{resp2, resp3};

use super::{PATIENCE, words};

/// One connection.
pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Why no reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server closed the connection.
    Closed,
    /// Nothing came for as long as was asked to wait.
    Silent,
}

/// A decoded reply, for the few tests that look inside.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any string, error or number, as its text.
    Text(Vec<u8>),
    /// An error.
    Error(String),
    /// Any null.
    Null,
    /// Arrays, sets and flattened maps.
    List(Vec<Value>),
}

impl Value {
    /// The text as UTF-8, if it is text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// The elements; none if it is not a list.
    pub fn list(&self) -> &[Self] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }
}

impl Client {
    /// Connects to a port of this machine.
    pub fn connect(port: u16) -> Self {
        Self::try_connect(SocketAddr::from(([127, 0, 0, 1], port))).expect("the server accepts connections")
    }

    /// Connects to an address.
    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes what is sent");
    }

    /// Sends bytes as they are; an error if the server has closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The socket itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Says that nothing more will be sent; replies still come.
    pub fn finish_sending(&self) {
        // The server may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The raw bytes of the next reply.
    pub fn reply(&mut self) -> Vec<u8> {
        self.next_reply(PATIENCE).expect("the server answers")
    }

    /// The raw bytes of the next reply, unless the server closes or says nothing for `patience`.
    pub fn next_reply(&mut self, patience: Duration) -> Result<Vec<u8>, Ended> {
        loop {
            if let Some(len) = reply_len(&self.buffer) {
                return Ok(self.buffer.drain(..len).collect());
            }
            self.fill(patience)?;
        }
    }

    /// Everything the server sends until it closes the connection.
    pub fn read_to_close(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            match self.fill(PATIENCE) {
                Ok(()) => {}
                Err(Ended::Closed) => return Ok(std::mem::take(&mut self.buffer)),
                Err(Ended::Silent) => return Err(Ended::Silent),
            }
        }
    }

    /// Exactly `len` bytes.
    pub fn read_exact(&mut self, len: usize) -> Result<Vec<u8>, Ended> {
        while self.buffer.len() < len {
            self.fill(PATIENCE)?;
        }
        Ok(self.buffer.drain(..len).collect())
    }

    /// Whether the server closes without sending anything more. Waits for at most `patience`.
    pub fn is_closed(&mut self, patience: Duration) -> bool {
        self.buffer.is_empty() && self.fill(patience) == Err(Ended::Closed)
    }

    /// One request, one reply, as raw bytes.
    pub fn call(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.send(&encode(args));
        self.reply()
    }

    /// As [`Client::call`], with the request as a line in redis-cli's quoting.
    pub fn line(&mut self, line: &str) -> Vec<u8> {
        self.send(&encode(&words::split(line)));
        self.reply()
    }

    /// As [`Client::line`], with the reply as text with its CRLF escaped: what tests compare with literals.
    pub fn ask(&mut self, line: &str) -> String {
        shown(&self.line(line))
    }

    /// As [`Client::line`], decoded.
    pub fn value(&mut self, line: &str) -> Value {
        decode(&self.line(line))
    }

    fn fill(&mut self, patience: Duration) -> Result<(), Ended> {
        self.stream.set_read_timeout(Some(patience)).expect("a positive timeout is valid");
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(Ended::Closed),
            Ok(len) => {
                self.buffer.extend_from_slice(&chunk[..len]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Err(Ended::Silent),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Ended::Closed),
        }
    }
}

/// A request as clients send it: an array of bulk strings.
pub fn encode<T: AsRef<[u8]>>(args: &[T]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Bytes as ASCII, the rest escaped.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// The length of the first whole reply in `bytes`. What RESP2 does not know is RESP3.
fn reply_len(bytes: &[u8]) -> Option<usize> {
    if bytes.is_empty() {
        return None;
    }
    match resp2::decode::decode_range(bytes) {
        Ok(found) => found.map(|(_, len)| len),
        Err(_) => resp3::decode::complete::decode_range(bytes)
            .unwrap_or_else(|error| panic!("not a reply ({error}): {}", shown(&bytes[..bytes.len().min(200)])))
            .map(|(_, len)| len),
    }
}

/// Decodes one whole reply.
pub fn decode(bytes: &[u8]) -> Value {
    if let Ok(Some((frame, _))) = resp2::decode::decode(bytes) {
        return from_resp2(frame);
    }
    let (frame, _) = resp3::decode::complete::decode(bytes).expect("a reply").expect("a whole reply");
    from_resp3(frame)
}

fn from_resp2(frame: resp2::types::OwnedFrame) -> Value {
    use resp2::types::OwnedFrame as F;
    match frame {
        F::SimpleString(bytes) | F::BulkString(bytes) => Value::Text(bytes),
        F::Error(text) => Value::Error(text),
        F::Integer(number) => Value::Text(number.to_string().into_bytes()),
        F::Array(frames) => Value::List(frames.into_iter().map(from_resp2).collect()),
        F::Null => Value::Null,
    }
}

fn from_resp3(frame: resp3::types::OwnedFrame) -> Value {
    use resp3::types::OwnedFrame as F;
    match frame {
        F::SimpleString { data, .. } | F::BlobString { data, .. } | F::VerbatimString { data, .. } => Value::Text(data),
        F::SimpleError { data, .. } => Value::Error(data),
        F::Number { data, .. } => Value::Text(data.to_string().into_bytes()),
        F::Double { data, .. } => Value::Text(data.to_string().into_bytes()),
        F::Boolean { data, .. } => Value::Text(data.to_string().into_bytes()),
        F::Array { data, .. } | F::Push { data, .. } => Value::List(data.into_iter().map(from_resp3).collect()),
        F::Set { data, .. } => Value::List(data.into_iter().map(from_resp3).collect()),
        F::Map { data, .. } => {
            Value::List(data.into_iter().flat_map(|(key, value)| [from_resp3(key), from_resp3(value)]).collect())
        }
        F::Null => Value::Null,
        other => panic!("a reply of an unexpected kind: {other:?}"),
    }
}
